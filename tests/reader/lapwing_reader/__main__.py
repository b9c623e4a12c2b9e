"""Prints as JSON what a passphrase opens in a vault.

The passphrase is the first line of standard input: never an argument. Exit codes: 0 done, 3 nothing is opened,
1 damaged or not a vault.
"""

import argparse
import json
import pathlib
import struct
import sys
import unicodedata

import cbor2

# Started by its folder: the package lies beside nothing else.
sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)


from lapwing_reader.container import REGIONS_AT, Container, Unlocked, WrongPassphrase
from lapwing_reader.database import Database
from lapwing_reader.primitives import Damaged
from lapwing_reader.records import Compartment
from lapwing_reader.volume import PAGE, STRIDE, Volume


def main():
    arguments = argparse.ArgumentParser(prog="lapwing_reader", description=__doc__)
    arguments.add_argument("vault", help="the vault's file, or an image of it")
    arguments.add_argument("--ranges", action="store_true", help="print which bytes of the file are in use")
    arguments = arguments.parse_args()
    path = arguments.vault
    with open(path, "rb") as file:
        container = Container(file.read())
    line = sys.stdin.buffer.readline().rstrip(b"\r\n").decode("utf-8")
    passphrase = unicodedata.normalize("NFC", line).encode("utf-8")
    unlocked = Unlocked(container, container.unlock(passphrase))
    volumes = [Volume(container, region, key) for region, key in unlocked.volumes]
    if arguments.ranges:
        json.dump({"ranges": in_use(container, volumes)}, sys.stdout)
        print()
        return
    described = [Compartment(volume).described() for volume in volumes]
    json.dump({"compartments": described}, sys.stdout, ensure_ascii=False)
    print()


def in_use(container, volumes):
    """Header, heads of the regions, pages that a tree leads to, and units that hold anything but zeros."""
    ranges = [(0, REGIONS_AT)]
    for volume in volumes:
        start = container.region_at(volume.region)
        ranges.append((start, volume.units_at - start))
        used = {unit for unit in range(volume.unit_count) if volume.holds_something(unit)}
        # Pages of several units may have zeros in the last ones, and are read whole.
        for offset, length in Database(volume).spans():
            used.update(range(offset // PAGE - 1, (offset + length) // PAGE - 1))
        ranges += [(volume.units_at + unit * STRIDE, STRIDE) for unit in sorted(used)]
    return ranges


try:
    main()
except WrongPassphrase:
    print("error: this passphrase opens nothing", file=sys.stderr)
    sys.exit(3)
except (Damaged, OSError, cbor2.CBORDecodeError, struct.error, KeyError) as fault:
    print(f"error: {fault}", file=sys.stderr)
    sys.exit(1)
