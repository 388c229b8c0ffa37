"""A second reader of Lockstep archives, written from docs/PROTOCOL.md alone. Section numbers are those of that document."""
