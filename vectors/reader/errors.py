"""What a reader says when it stops. `kind` is the error class of vectors/README.md."""


class Refused(Exception):
    """The archive (or a structure) is not accepted: nothing of it is shown as if it were good."""

    kind = "refused"


class Malformed(Refused):
    """Not the one encoding of the structure, or a rule of the structure alone is broken (1.1)."""

    kind = "malformed"


class TooMuch(Malformed):
    """Longer than a limit, or one more than there may be (1.5)."""

    kind = "limit"


class WrongVersion(Refused):
    """A version or a suite that this reader does not know; it is named (status, 1.4)."""

    kind = "version"


class WrongIdentity(Refused):
    """An identity key that does not belong to the account id (2.1)."""

    kind = "identity"


class BadSignature(Refused):
    """A signature that strict verification does not accept, or whose key is none that counts (1.2)."""

    kind = "signature"


class CannotOpen(Refused):
    """`Open` failed: one error for a wrong commitment and for a wrong tag (1.2), and for contents that do not belong to their header."""

    kind = "open"


class BadProfile(Refused):
    """A profile of Argon2id that is not in the closed list (2.1)."""

    kind = "profile"


class BadPassphrase(Refused):
    """No passphrase, or more than 1,024 bytes of it (2.4)."""

    kind = "passphrase"


class BadText(Refused):
    """The text of a recovery key or of a checkpoint (2.3); `position` is the place of one wrong character."""

    kind = "text"

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class BrokenChain(Refused):
    """Well-formed and perhaps signed, but it does not go there."""

    kind = "chain"


class Fault(BrokenChain):
    """A commit signed by a device of the log that breaks a rule of the chain (6.3)."""

    def __init__(self, message: str, kind: str = "chain") -> None:
        super().__init__(message)
        self.kind = kind


class Fork(Refused):
    """Another commit or entry at a place that is known or pinned (4.2, 6.3)."""

    kind = "fork"


class Rollback(Refused):
    """A chain or log that ends before a pinned place (4.2, 6.5)."""

    kind = "rollback"


class Incomplete(Refused):
    """An archive that lacks, without saying so, what it has to hold (10.1)."""

    kind = "incomplete"


class BadArchive(Refused):
    """An archive is refused as a whole, whatever in it is the reason (10.1)."""

    kind = "archive"
