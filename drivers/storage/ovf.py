"""What an OVF descriptor and its manifest say: the one disk that is an image, and checksums. Pure.

OVF 1 and 2 (DMTF DSP0243): https://www.dmtf.org/standards/ovf. What comes is a stranger's: no entity is resolved,
nothing is loaded from elsewhere, and a name of a file must be no more than that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lxml import etree

from core.errors import Invalid

MAX_TEXT_BYTES = 2**22  # of a descriptor or a manifest
_SPACES = ("http://schemas.dmtf.org/ovf/envelope/1", "http://schemas.dmtf.org/ovf/envelope/2")
_PLAIN = re.compile(r"[^/\\\x00-\x1f:]+")
_LINE = re.compile(r"(?P<kind>[A-Za-z0-9-]+)\s*\((?P<name>.+)\)\s*=\s*(?P<digest>[0-9A-Fa-f]+)")
_ALGORITHMS = {"sha1": "sha1", "sha-1": "sha1", "sha256": "sha256", "sha-256": "sha256", "sha512": "sha512",
               "sha-512": "sha512"}  # fmt: skip


@dataclass(frozen=True)
class Disk:
    """The file of a disk. size_bytes: of the file, None if it is not said."""

    file: str
    size_bytes: int | None


@dataclass(frozen=True)
class Digest:
    algorithm: str  # as hashlib knows it
    hex: str


def disk_of(descriptor: bytes, source: str) -> Disk:
    """Return the file of the only disk of a descriptor. Raise Invalid."""
    root = _root(descriptor, source)
    space = etree.QName(root).namespace
    ns = {"o": space}

    def attribute(element: etree._Element, name: str) -> str | None:
        value = element.get(f"{{{space}}}{name}") or element.get(name)
        return None if value is None else str(value)

    files = {attribute(one, "id"): one for one in root.findall("o:References/o:File", ns)}
    sections = [*root.findall("o:DiskSection/o:Disk", ns), *root.findall("o:Section/o:Disk", ns)]
    wanted = [ref for ref in (attribute(one, "fileRef") for one in sections) if ref]
    if len(set(wanted)) != 1:
        raise _invalid(
            source, f"it has {len(set(wanted))} disks with content, and an image is one",
            "take its disks out (tar -xf), and import each as an image of its own",
        )  # fmt: skip
    file = files.get(wanted[0])
    if file is None:
        raise _invalid(source, f"its disk refers to a file {wanted[0]}, which it does not name")
    if attribute(file, "chunkSize") or (attribute(file, "compression") or "identity") != "identity":
        raise _invalid(
            source, "its disk is cut into chunks or compressed once more", "export it as a single plain .vmdk"
        )
    size = attribute(file, "size")
    return Disk(plain(attribute(file, "href") or "", source), int(size) if size and size.isdigit() else None)


def _root(descriptor: bytes, source: str) -> etree._Element:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False)
    try:
        root = etree.fromstring(descriptor, parser)
    except etree.XMLSyntaxError as error:
        raise _invalid(source, f"its descriptor is no XML: {error}") from error
    if str(getattr(root.getroottree().docinfo, "doctype", "")):
        raise _invalid(source, "its descriptor declares a document type of its own")
    if etree.QName(root).localname != "Envelope" or etree.QName(root).namespace not in _SPACES:
        raise _invalid(source, "its descriptor is no OVF envelope of version 1 or 2")
    return root


def plain(name: str, source: str) -> str:
    """Return a name that is a file's and leads nowhere else. Raise Invalid."""
    if not _PLAIN.fullmatch(name) or name in (".", ".."):
        raise _invalid(source, f"it names a file {name[:80]!r}, which could lie anywhere")
    return name


def manifest(text: bytes, source: str) -> dict[str, Digest]:
    """Return file name -> digest. Raise Invalid (a line that is none, an algorithm that is not known)."""
    found: dict[str, Digest] = {}
    for line in (one.strip() for one in text.decode(errors="replace").splitlines()):
        if not line:
            continue
        words = _LINE.fullmatch(line)
        algorithm = _ALGORITHMS.get(words["kind"].lower()) if words else None
        if words is None or algorithm is None:
            raise _invalid(source, f"its manifest has a line that cannot be read: {line[:80]!r}")
        found[words["name"]] = Digest(algorithm, words["digest"].lower())
    return found


def require_same(name: str, seen: Mapping[str, str], wanted: Mapping[str, Digest], source: str) -> None:
    """Raise Invalid unless a file has the digest that the manifest names. seen: algorithm -> digest."""
    digest = wanted.get(name)
    if digest is None:
        raise _invalid(source, f"its manifest does not name {name}")
    if seen[digest.algorithm] != digest.hex:
        raise _invalid(source, f"{name} has another checksum than its manifest says", "fetch it again")


ALGORITHMS = tuple(sorted(set(_ALGORITHMS.values())))


def _invalid(source: str, why: str, fix: str = "name another file") -> Invalid:
    return Invalid(f"{source} cannot be used: {why}", f"image/{source}", {}, fix)
