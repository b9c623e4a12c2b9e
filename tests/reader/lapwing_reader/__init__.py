"""A second reader of Lapwing's vaults, written from docs/vault-format.md and docs/records-format.md alone.

It shares no line with the program. It only reads: it takes no lock, writes nothing, and refreshes no slot.
"""
