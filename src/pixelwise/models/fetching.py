"""Fetch the files of a repository on the Hugging Face Hub, or say what to bring where it cannot be reached.

Comes in: OWNER/NAME. Goes out: a folder with its files, from the cache where they are there. Knows nothing of what is in
the files. Nothing is fetched that nobody named.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pixelwise.errors import ConfigError, ModelFileError, ResourceError
from pixelwise.models.transformers import CONFIG, PROCESSOR
from pixelwise.models.weights import CARD, WEIGHTS

README = "README.md"
_CONVERTER = "SFconvertbot"


def is_hub_name(text: str) -> bool:
    """Tell whether a text means a repository: OWNER/NAME, and neither it nor a folder OWNER is here."""
    owner, _, name = text.partition("/")
    plain = re.compile(r"[A-Za-z0-9][\w.-]*")
    return bool(plain.fullmatch(owner) and plain.fullmatch(name)) and not Path(owner).exists()


def downloaded(repository: str, revision: str | None = None) -> Path:
    """Fetch weights, configuration, processor, card and README of a repository; the last four may be missing there.

    Where the main branch has no safetensors, those that the Hub's own converter offered as a pull request are taken, as
    transformers does.

    Raises:
        ModelFileError: there are no safetensors.
        ResourceError: a file is not here and cannot be fetched.
    """
    try:
        from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError as error:
        raise ConfigError(
            "model.weights",
            expected="the library huggingface_hub",
            found="it is not installed",
            do="Say: pip install 'pixelwise[models]'.",
        ) from error

    def fetch(name: str, at: str | None) -> Path | None:
        try:
            return Path(hf_hub_download(repository, name, revision=at))
        except EntryNotFoundError as error:
            # Without a network nobody can be asked, but an earlier answer is in the cache.
            known_missing = try_to_load_from_cache(repository, name, revision=at) is _CACHED_NO_EXIST
            if isinstance(error, LocalEntryNotFoundError) and not known_missing:
                raise unreachable(f"{repository} {name}", f"https://huggingface.co/{repository}", "", error) from error
            return None
        except network_errors() as error:
            raise unreachable(f"{repository} {name}", f"https://huggingface.co/{repository}", "", error) from error

    weights = fetch(WEIGHTS, revision)
    if weights is None and revision is None:
        revision = _converted(repository)
        weights = fetch(WEIGHTS, revision) if revision else None
    if weights is None:
        raise ModelFileError(
            repository,
            expected=f"a repository with {WEIGHTS}",
            found="none there",
            do=f"Where you trust its author, fetch its pytorch_model.bin and say: pixelwise import-weights "
            f"pytorch_model.bin --out FOLDER/{WEIGHTS}; put its {CONFIG} and {PROCESSOR} beside, and name FOLDER.",
        )
    for name in (CONFIG, PROCESSOR, CARD, README):
        fetch(name, revision)
    return weights.parent


def _converted(repository: str) -> str | None:
    """Find the pull request of the Hub's converter; None where there is none, or nobody can be asked."""
    from huggingface_hub import get_repo_discussions

    try:
        for found in get_repo_discussions(repository, author=_CONVERTER, discussion_type="pull_request"):
            if found.author == _CONVERTER and found.status == "open":
                return found.git_reference
    except network_errors():
        pass
    return None


def network_errors() -> tuple[type[Exception], ...]:
    """Give what the Hub's library raises where there is no network, or no right to what was asked for."""
    import huggingface_hub.utils

    httpx: Any = getattr(huggingface_hub.utils, "httpx", None)
    return (OSError, ValueError, *([httpx.HTTPError] if httpx else []))


def unreachable(what: str, address: str, place: str, error: Exception) -> ResourceError:
    """Say which file to bring from where, and where to put it.

    Args:
        what: is wanted.
        address: where it is.
        place: the folder in which its library looks; "": any folder, which is named then.
        error: what happened.
    """
    problem = " ".join(str(error).split()).partition(". ")[0][:160] or type(error).__name__
    files = f"Put its {CONFIG}, {PROCESSOR}, README.md and {WEIGHTS} into a folder"
    where, follow = (f"Put it into {place}", "the same again") if place else (files, "--weights FOLDER")
    return ResourceError(
        what,
        expected="the file, or a way to fetch it",
        found=f"neither ({problem})",
        do=f"Fetch {address} on a machine with a network. {where} here, and say {follow}.",
    )
