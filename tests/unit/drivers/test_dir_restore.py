"""Copies of a disk, read as one disk."""

from __future__ import annotations

import json

from drivers.storage.dir_restore import on_top


def test_a_chain_of_copies_as_qemu_reads_it() -> None:
    name = on_top(["/d/0.qcow2", "/d/1.qcow2", '/d/"2.qcow2'])
    assert name.startswith("json:")
    assert json.loads(name.removeprefix("json:")) == {
        "driver": "qcow2", "file": {"driver": "file", "filename": '/d/"2.qcow2'}, "backing": {
            "driver": "qcow2", "file": {"driver": "file", "filename": "/d/1.qcow2"}, "backing": {
                "driver": "qcow2", "file": {"driver": "file", "filename": "/d/0.qcow2"}, "backing": None,
            },
        },
    }  # fmt: skip
