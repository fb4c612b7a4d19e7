"""Exchange files with the Hugging Face Hub. Only repositories and weights that the user names are downloaded."""

from __future__ import annotations

import re
from pathlib import Path

from pixelwise.errors import ModelFileError, ResourceError
from pixelwise.models.card import CARD, WEIGHTS
from pixelwise.models.readme import README, write_readme
from pixelwise.models.transformers import CONFIG, PROCESSOR

FILES = (WEIGHTS, CARD, README, CONFIG, PROCESSOR)
_CONVERTER = "SFconvertbot"


def is_hub_name(text: str) -> bool:
    """Whether a text is the name of a repository: OWNER/NAME, and no local path OWNER exists."""
    owner, _, name = text.partition("/")
    plain = re.compile(r"[A-Za-z0-9][\w.-]*")
    return bool(plain.fullmatch(owner) and plain.fullmatch(name)) and not Path(owner).exists()


def download(repository: str, revision: str | None = None) -> Path:
    """Download `FILES` of a repository, of which only the weights must exist, and return the folder that contains them.

    If the main branch has no safetensors, those of the pull request of the Hub's converter are used, as in transformers.

    Raises:
        ModelFileError: the repository has no safetensors.
        ResourceError: a file is not in the cache and cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    failures: tuple[type[Exception], ...] = (EntryNotFoundError, *network_errors())

    def fetch(name: str, at: str | None) -> Path | None:
        try:
            return Path(hf_hub_download(repository, name, revision=at))
        except failures as error:
            missing = isinstance(error, EntryNotFoundError)
            if isinstance(error, LocalEntryNotFoundError):
                # Without a network, the cache may record that the file does not exist: neither a path nor None.
                cached = try_to_load_from_cache(repository, name, revision=at)
                missing = cached is not None and not isinstance(cached, str)
            if missing:
                return None
            raise unreachable(f"{repository} {name}", f"https://huggingface.co/{repository}", "", error) from error

    weights = fetch(WEIGHTS, revision)
    if weights is None and revision is None:
        revision = _converted(repository)
        weights = fetch(WEIGHTS, revision) if revision else None
    if weights is None:
        raise ModelFileError(
            repository,
            expected=f"a repository with {WEIGHTS}",
            found="no such file",
            do="If you trust its author, download its pytorch_model.bin and run: pixelwise import-weights "
            f"pytorch_model.bin --out FOLDER/{WEIGHTS}; add its {CONFIG} and {PROCESSOR}, and use FOLDER.",
        )
    for name in FILES[1:]:
        fetch(name, revision)
    return weights.parent


def _converted(repository: str) -> str | None:
    """Return the revision of the pull request of the Hub's converter, or None."""
    from huggingface_hub import get_repo_discussions

    try:
        for request in get_repo_discussions(repository, author=_CONVERTER, discussion_type="pull_request"):
            if request.author == _CONVERTER and request.status == "open":
                return request.git_reference
    except network_errors():
        pass
    return None


def network_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that huggingface_hub raises without a network or permission, and for a malformed name."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # The error class of its HTTP library, which differs between versions, is a base of HfHubHTTPError.
    return (OSError, HFValidationError, *HfHubHTTPError.__bases__)


def push(folder: Path, repository: str, *, private: bool = True) -> str:
    """Upload a model folder with its README to the Hub repository OWNER/NAME, which is created if it does not exist.

    Returns:
        The URL of the repository.

    Raises:
        ModelFileError: the folder is not a complete model.
        ResourceError: the Hub cannot be reached, or access is denied.
    """
    import huggingface_hub

    write_readme(folder)
    try:
        huggingface_hub.create_repo(repository, private=private, exist_ok=True)
        huggingface_hub.upload_folder(repo_id=repository, folder_path=str(folder), allow_patterns=list(FILES))
    except network_errors() as error:
        raise ResourceError(
            repository,
            expected="access to the Hub",
            found=_problem(error),
            do="Log in with `hf auth login`, or upload the folder manually: it is a complete repository.",
        ) from error
    return f"https://huggingface.co/{repository}"


def pull(repository: str) -> Path:
    """Download a model folder from the Hub, unless it is in the cache.

    Raises:
        ModelFileError: the repository contains no pixelwise model.
        ResourceError: the Hub cannot be reached.
    """
    import huggingface_hub

    try:
        folder = Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(FILES)))
    except network_errors() as error:
        raise ResourceError(
            repository,
            expected="a local folder, or access to the Hub",
            found=f"neither ({_problem(error)})",
            do=f"Download {WEIGHTS} and {CARD} from https://huggingface.co/{repository} to a folder, and use that.",
        ) from error
    if not (folder / CARD).is_file():
        raise ModelFileError(
            repository, expected=f"a repository with {CARD}", found="none", do="Use it with --weights instead."
        )
    return folder


def unreachable(what: str, address: str, place: str, error: Exception) -> ResourceError:
    """Return the error for a file that cannot be downloaded.

    Args:
        what: the file.
        address: URL of the file.
        place: the cache folder of its library; "": any folder.
        error: the cause.
    """
    if place:
        steps = f"Copy it to {place}, and run the same command again."
    else:
        steps = f"Copy its {CONFIG}, {PROCESSOR}, {README} and {WEIGHTS} to a folder, and use --weights FOLDER."
    return ResourceError(
        what,
        expected="the file, or a network connection to download it",
        found=f"neither ({_problem(error)})",
        do=f"Download {address} on a machine with a network. {steps}",
    )


def _problem(error: Exception) -> str:
    return " ".join(str(error).split()).partition(". ")[0][:160] or type(error).__name__
