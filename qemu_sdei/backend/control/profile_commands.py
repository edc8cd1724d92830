"""The control socket's command for the firmware profile: what misbehaves on purpose, and a change of it."""

from __future__ import annotations

from typing import Any, Final

from qemu_sdei.backend.control.commands import Field, Switch, commands_of, handles
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.profiles.firmware_profile import MAX_RULES, SPEC_PROFILE, FirmwareProfile
from qemu_sdei.profiles.rule import Rule

_MAX_RULES: Final = MAX_RULES


class ProfileCommands:
    """The command `firmware`.

    Attributes:
        commands: by name.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.commands = commands_of(self)

    @handles(
        "firmware",
        Field("profile", ": the document of a firmware profile, which takes the place of what there is (none)"),
        Switch("clear", default=False, about=": no rule acts any more"),
        Field("set", ": list of rules as text, behind those that there are (none)"),
        result="`profile`, `summary`, `rules` (`rule`, `why`, how often it has `acted`), and the vCPUs that "
        "are `deaf`, `stuck` in EL3, or `held` (no interrupts until their handlers complete). Nothing is changed where "
        "something of it cannot be",
        changes=True,
    )
    def _firmware(self, client: Any, message: dict[str, Any]) -> dict[str, Any]:
        current = self._server.firmware.misbehaviour.profile
        profile = SPEC_PROFILE if message["clear"] else current
        document = message.get("profile")
        try:
            if document is not None:
                profile = FirmwareProfile.of_document(document)
        except ProtocolError as error:
            raise UsageError(str(error)) from None
        texts = message.get("set", [])
        if not isinstance(texts, list) or len(texts) > _MAX_RULES or not all(isinstance(text, str) for text in texts):
            raise UsageError(f"set is a list of up to {_MAX_RULES} texts")
        if texts:
            profile = profile.with_rules([Rule.of_text(text) for text in texts])
        if profile is not current:
            self._server.misbehave(profile)
        return self._server.firmware.misbehaviour.report()
