"""Open wheels and source distributions as archives: members are read as streams, nothing is unpacked or run."""

from __future__ import annotations

import email
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from lucidlm.core.errors import InputError

LARGEST = 16_000_000_000
"""Bytes: an archive that unpacks to more is refused as a decompression bomb; packages do not carry that much data."""
MOST_MEMBERS = 200_000
NAMES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
LONGEST_NAME = 65_536
"""Bytes: limit for tar entries that hold a long name or headers of the next member: tarfile reads them whole."""


@dataclass(frozen=True)
class Archive:
    """An open archive.

    Parameters
    ----------
    name: for messages.
    members: a function to open each member, by its path (without the top folder of a source distribution).
    sizes: of the members in bytes, by path.
    links: paths of links, which are not among the members.
    """

    name: str
    members: dict[str, Callable[[], BinaryIO]]
    sizes: dict[str, int]
    links: list[str]

    def open(self, path: str) -> BinaryIO:
        """Open the member at `path` as a binary stream.

        Raises
        ------
        InputError: there is none.
        """
        if path not in self.members:
            raise InputError(f"there is no {path!r} in it", where=self.name)
        return self.members[path]()

    def below(self, path: str) -> list[str]:
        """Return the members at or below `path`, in the archive's order."""
        folder = path.rstrip("/") + "/"
        return [member for member in self.members if member == path or member.startswith(folder)]

    def licence(self) -> str:
        """Return the licence that the package's metadata declares, or "not stated"."""
        for member in self.members:
            if PurePosixPath(member).name in ("METADATA", "PKG-INFO"):
                with self.open(member) as file:
                    metadata = email.message_from_bytes(file.read())
                for field in (metadata["License-Expression"], metadata["License"]):
                    if field and field.strip().upper() != "UNKNOWN":
                        return field.strip().splitlines()[0]
                for classifier in metadata.get_all("Classifier") or []:
                    if classifier.startswith("License ::"):
                        return classifier.rsplit("::", 1)[1].strip()
        return "not stated"


@contextmanager
def open_archive(path: Path, name: str) -> Iterator[Archive]:
    """Open a .whl, .zip, .tar.gz, .tar.bz2 or .tar.xz.

    Raises
    ------
    InputError: it is damaged or of another format, a member's path leads outside, or it unpacks to more than `LARGEST`.
    """
    with ExitStack() as stack:
        try:
            if path.suffix in (".whl", ".zip"):
                archive = _zip_members(stack.enter_context(zipfile.ZipFile(path)), name)
            else:
                archive = _tar_members(stack.enter_context(tarfile.open(path, tarinfo=_TarInfo)), name)
        except InputError:
            raise
        except Exception as error:  # of any kind: headers are parsed as numbers, text and times without checks
            raise _unsound(error, name) from error
        try:
            yield archive
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise _unsound(error, name) from error


class _TarInfo(tarfile.TarInfo):
    """A tar header, refused if it claims a size for which tarfile would allocate too much memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _TarInfo:
        """Parse a header, as tarfile does."""
        info = super().frombuf(buf, encoding, errors)
        if info.type in NAMES and not 0 <= info.size <= LONGEST_NAME:
            raise ValueError(f"a name claims {info.size:,} bytes")
        return info


def _opened(opener: Callable[[Any], object], info: object, name: str) -> BinaryIO:
    try:
        return cast(BinaryIO, opener(info))
    except Exception as error:  # of any kind, as in `open_archive`
        raise _unsound(error, name) from error


def _unsound(error: Exception, name: str) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"is not a sound archive ({reason})", where=name, fix="Choose another version.")


def _zip_members(archive: zipfile.ZipFile, name: str) -> Archive:
    for info in archive.infolist():
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            what = f"{info.filename!r} is encrypted, or compressed in a way that packages are not"
            raise InputError(what, where=name, fix="Unpack it first, or choose another.")
    infos = [info for info in archive.infolist() if not info.is_dir()]
    links = [info for info in infos if stat.S_ISLNK(info.external_attr >> 16)]
    files = [info for info in infos if not stat.S_ISLNK(info.external_attr >> 16)]
    _check(((info.filename, info.file_size) for info in files), name)
    return Archive(
        name,
        {info.filename: partial(_opened, archive.open, info, name) for info in files},
        {info.filename: info.file_size for info in files},
        [info.filename for info in links],
    )


def _tar_members(archive: tarfile.TarFile, name: str) -> Archive:
    files: list[tarfile.TarInfo] = []
    links: list[str] = []

    def sizes() -> Iterator[tuple[str, int]]:
        for info in archive:  # one header at a time, so that a bomb is refused before it is read to the end
            if info.size < 0:  # the next header would lie before this one
                raise tarfile.ReadError(f"{info.name!r} claims {info.size:,} bytes")
            if info.isfile() and not info.issparse():  # links and special files are left out
                files.append(info)
                yield info.name, info.size
            elif not info.isdir():
                links.append(info.name)

    _check(sizes(), name)
    top = {PurePosixPath(info.name).parts[0] for info in files}
    prefix = f"{top.pop()}/" if len(top) == 1 and all("/" in info.name for info in files) else ""
    return Archive(
        name,
        {info.name.removeprefix(prefix): partial(_opened, archive.extractfile, info, name) for info in files},
        {info.name.removeprefix(prefix): info.size for info in files},
        links,
    )


def _check(files: Iterable[tuple[str, int]], name: str) -> None:
    total, paths = 0, set[PurePosixPath]()
    for member, size in files:
        path = PurePosixPath(member.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            raise InputError(f"holds the path {member!r}, which leads out of it", where=name, fix="Do not trust it.")
        if path in paths or any(len(os.fsencode(part)) > 255 for part in path.parts):
            raise InputError(
                f"holds {member!r} twice, or longer than a name may be", where=name, fix="Do not trust it."
            )
        if len(paths) == MOST_MEMBERS:
            raise InputError(f"holds more than {MOST_MEMBERS:,} files", where=name, fix="Do not trust it.")
        paths.add(path)
        total += size
        if total > LARGEST:
            raise InputError(f"unpacks to more than {LARGEST / 1e9:.0f} GB", where=name, fix="Do not trust it.")
