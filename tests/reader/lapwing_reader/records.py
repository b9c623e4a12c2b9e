"""Section 3 of docs/records-format.md: names, chats, messages."""

import cbor2

from .database import Database
from .primitives import open_sealed

SETTINGS = 0x01
CHAT = 0x03
MESSAGE = 0x07
BODY_LABEL = b"lapwing/1 message body"


class Compartment:
    """The records of one volume."""

    def __init__(self, volume):
        self.volume = volume
        database = Database(volume)
        rows = [row for table in database.tables() for row in database.table(table)]
        self.rows = [(key, cbor2.loads(value)) for key, value in sorted(rows)]

    def _of(self, table):
        return [(key[1:], row) for key, row in self.rows if key[0] == table]

    def described(self):
        """What a person would be shown, as plain data."""
        names = [row["name"] for _, row in self._of(SETTINGS)]
        chats = [self._chat(chat, row) for chat, row in self._of(CHAT)]
        return {
            "name": names[0] if names else None,
            "region": self.volume.region,
            "records": len(self.rows),
            "chats": sorted(chats, key=lambda chat: chat["name"]),
        }

    def _chat(self, chat, row):
        messages = [
            self._message(key, message) for key, message in self._of(MESSAGE) if key[:16] == chat
        ]
        return {"name": row["name"], "kind": row["kind"], "messages": messages}

    def _message(self, key, row):
        order = int.from_bytes(key[16:], "big")
        body_key = self.volume.keys.get(row["key"])
        plain = None
        if body_key is not None:
            plain = open_sealed(body_key, BODY_LABEL + key, row["body"])
        writer = row["writer"]
        return {
            "order": order,
            "writer": writer if isinstance(writer, str) else next(iter(writer)),
            "sent": row["sent"],
            "state": row["state"],
            "text": None if plain is None else plain.decode("utf-8"),
        }
