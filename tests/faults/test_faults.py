"""The campaign in short; in full by ``python tests/faults/campaign.py``."""

import signal

import experiments as do
import pytest

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("way", do.WAYS)
def test_each_file_damaged(way):
    assert_held(do.damage(way, 3))


@pytest.mark.parametrize("experiment", [do.full_disk, do.no_inodes, do.short_files, do.read_only])
def test_disks(experiment):
    assert_held(experiment())


@pytest.mark.parametrize(
    "experiment",
    [do.renamed, do.foreign, lambda: do.shared(1)],
    ids=["renamed", "foreign", "shared"],
)
def test_folders(experiment):
    assert_held(experiment())


def test_readers():
    assert_held(do.readers(1))


def test_kills():
    assert_held(do.kills(3, (signal.SIGKILL, signal.SIGTERM, signal.SIGINT), do.LOOP))


@pytest.mark.slow
def test_networks():
    assert_held(do.networks(8, dtypes=(), same_each_time=True))


def assert_held(row):
    assert not row.broken
    if not row.times:
        pytest.skip(row.done)
