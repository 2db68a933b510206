"""ISO 9660 images of a few texts, as cloud-init reads them from a disk or a partition."""

from __future__ import annotations

import io
from collections.abc import Mapping

import pycdlib


def iso_image(label: str, texts: Mapping[str, str], folder: str = "") -> bytes:
    """Return an image with Joliet and Rock Ridge names. texts: file name -> content, all in one folder (a/b)."""
    iso = pycdlib.PyCdlib()
    iso.new(vol_ident=label, joliet=3, rock_ridge="1.09")
    short = long = ""
    for n, name in enumerate(folder.split("/") if folder else ()):
        short, long = f"{short}/D{n}", f"{long}/{name}"
        iso.add_directory(short, rr_name=name, joliet_path=long)
    for n, (name, text) in enumerate(texts.items()):
        data = text.encode()
        iso.add_fp(io.BytesIO(data), len(data), f"{short}/F{n}.;1", rr_name=name, joliet_path=f"{long}/{name}")
    out = io.BytesIO()
    iso.write_fp(out)
    iso.close()
    return out.getvalue()
