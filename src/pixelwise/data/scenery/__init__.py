"""Road scenes in parts: `backdrop` and `painter`, what they carry (`things`, `traffic`), and where it stands (`street`)."""
