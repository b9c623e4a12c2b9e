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


from lapwing_reader.container import Container, Unlocked, WrongPassphrase
from lapwing_reader.primitives import Damaged
from lapwing_reader.records import Compartment
from lapwing_reader.volume import Volume


def main():
    arguments = argparse.ArgumentParser(prog="lapwing_reader", description=__doc__)
    arguments.add_argument("vault", help="the vault's file, or an image of it")
    path = arguments.parse_args().vault
    with open(path, "rb") as file:
        container = Container(file.read())
    line = sys.stdin.buffer.readline().rstrip(b"\r\n").decode("utf-8")
    passphrase = unicodedata.normalize("NFC", line).encode("utf-8")
    unlocked = Unlocked(container, container.unlock(passphrase))
    volumes = [Volume(container, region, key) for region, key in unlocked.volumes]
    described = [Compartment(volume).described() for volume in volumes]
    json.dump({"compartments": described}, sys.stdout, ensure_ascii=False)
    print()


try:
    main()
except WrongPassphrase:
    print("error: this passphrase opens nothing", file=sys.stderr)
    sys.exit(3)
except (Damaged, OSError, cbor2.CBORDecodeError, struct.error, KeyError) as fault:
    print(f"error: {fault}", file=sys.stderr)
    sys.exit(1)
