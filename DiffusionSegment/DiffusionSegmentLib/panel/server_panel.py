"""Advanced > Run on: this computer, or a server with address, token and certificate."""

from pathlib import Path
from typing import Any

import qt
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError
from DiffusionSegmentBackend.protocol.connection import ServerConnection, server_connection
from DiffusionSegmentBackend.protocol.messages import Hello

from ..worker.client import WorkerClient
from ..worker.remembered_server import SERVER_FILE, forgetServer, readServer, writeServer
from ..worker.server_check import ServerCheck
from ..worker.server_choice import ServerChoice
from ..worker.transport import transportOf
from . import wording
from .panel_context import PanelContext, offer

_THIS_COMPUTER, _SERVER = 0, 1


def serverFile() -> Path:
    """The file of a remembered server, next to the settings of Slicer but not in them."""
    return Path(str(slicer.app.slicerUserSettingsFilePath)).parent / SERVER_FILE


class ServerPanel:
    """Connects the widgets of the server to the choice; a token is in the field and in memory, unless remembered."""

    def __init__(self, ui: Any, client: WorkerClient, context: PanelContext, server: ServerChoice) -> None:
        self._ui = ui
        self._client = client
        self._context = context
        self._server = server
        self._check: ServerCheck | None = None
        self._file = serverFile()
        ui.serverTokenEdit.setEchoMode(qt.QLineEdit.Password)
        for text in wording.RUN_ON:
            ui.runOnSelector.addItem(text)
        ui.runOnSelector.toolTip = wording.RUN_ON_TIP
        ui.rememberServerBox.toolTip = wording.SERVER_REMEMBER_TIP.format(path=self._file)
        self._showRemembered()
        ui.runOnSelector.currentIndexChanged.connect(self.onRunOn)
        for edit in self._edits:
            edit.editingFinished.connect(self.onEdited)
        ui.rememberServerBox.toggled.connect(self.onRemember)
        ui.testConnectionButton.clicked.connect(self.onTest)
        self._say("")
        self._apply()

    @property
    def _edits(self) -> tuple[Any, ...]:
        return self._ui.serverAddressEdit, self._ui.serverTokenEdit, self._ui.serverCertificateEdit

    def _showRemembered(self) -> None:
        connection = readServer(self._file)
        if connection is None:
            return
        texts = connection.address, connection.token, connection.certificate
        for edit, text in zip(self._edits, texts, strict=True):
            edit.text = text
        self._ui.rememberServerBox.checked = True
        self._ui.runOnSelector.currentIndex = _SERVER

    def update(self) -> None:
        """Show the fields of a server where one is chosen; nothing can be changed during a run."""
        ui, chosen, busy = self._ui, self._server.connection is not None, self._client.running
        ui.serverFrame.visible = chosen
        for widget in (ui.runOnSelector, *self._edits, ui.rememberServerBox):
            widget.enabled = not busy
        offer(ui.testConnectionButton, wording.BUSY if busy else "", wording.TEST_CONNECTION_TIP)

    def onRunOn(self, _: object) -> None:
        """This computer or a server was chosen."""
        self._say("")
        self._apply()

    def onEdited(self) -> None:
        """A field was edited."""
        self._apply()

    def onRemember(self, _: bool) -> None:
        """The tick was set or removed."""
        self._context.guard(self._remember)

    def _apply(self) -> None:
        """Use what the fields say: with another server the client process of the last one ends."""
        typed = None
        if self._ui.runOnSelector.currentIndex == _SERVER:
            address, token, certificate = (str(edit.text).strip() for edit in self._edits)
            typed = ServerConnection(address=address, token=token, certificate=certificate)
        if typed != self._server.connection and not self._client.running:
            self._server.connection = typed
            self._client.close()
            self._context.guard(self._remember)
        self.update()

    def _remember(self) -> None:
        """Keep or delete the file; an incomplete connection is not kept."""
        typed = self._server.connection
        if not self._ui.rememberServerBox.checked or typed is None:
            forgetServer(self._file)
            return
        try:
            connection = server_connection(typed.address, typed.token, typed.certificate)
        except DiffusionSegmentError:
            return
        writeServer(self._file, connection)

    def onTest(self) -> None:
        """Ask the server for its version."""
        self._apply()
        self.close()
        self._say(wording.TESTING_CONNECTION)
        self._check = ServerCheck(transportOf(self._server), self.onTested)
        self._check.start()

    def onTested(self, answer: Hello | DiffusionSegmentError) -> None:
        """The server has answered, or there is a reason why not."""
        if isinstance(answer, DiffusionSegmentError):
            self._say(" ".join(part for part in ("⚠", answer.message, answer.hint, f"[{answer.code.value}]") if part))
        else:
            text = wording.SERVER_FINE.format(version=answer.version, device=answer.device, count=len(answer.models))
            self._say(text)

    def close(self) -> None:
        """End a test that is in progress."""
        if self._check is not None:
            self._check.close()
            self._check = None

    def _say(self, text: str) -> None:
        self._ui.serverLabel.text = text
        self._ui.serverLabel.visible = bool(text)
