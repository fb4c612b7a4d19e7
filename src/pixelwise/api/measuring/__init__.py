"""The verb `measure`: sizes in predictions and masks."""
