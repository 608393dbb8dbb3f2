"""Each known difference between PythonQt and PySide6: what fails or behaves otherwise there does so in the stand-in."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from PySide6 import QtWidgets
from pythonqt.slicer_application import Application


@pytest.fixture
def qt(application: Application) -> Any:
    return application.qt


class Listener:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def nothing(self) -> None:
        self.told.append("nothing")

    def one(self, value: bool) -> None:
        self.told.append(value)

    def default(self, force: str = "no") -> None:
        self.told.append(force)

    def keyword(self, *, force: str = "no") -> None:
        self.told.append(force)

    def everything(self, *values: Any) -> None:
        self.told.append(values)


@pytest.mark.parametrize(
    ("handler", "told"),
    [("nothing", "nothing"), ("one", False), ("default", False), ("keyword", "no"), ("everything", (False,))],
)
def test_a_handler_gets_as_many_arguments_as_it_names_and_defaults_count(qt: Any, handler: str, told: Any) -> None:
    listener, button = Listener(), qt.QPushButton()
    button.clicked.connect(getattr(listener, handler))
    button.click()
    assert listener.told == [told]


def test_what_is_no_plain_function_gets_every_argument(qt: Any) -> None:
    told: list[Any] = []
    button = qt.QPushButton()
    button.clicked.connect(functools.partial(lambda *values: told.append(values), "given"))
    button.clicked.connect(told.append)
    button.click()
    assert told == [("given", False), False]


def test_a_connection_holds_its_receiver(qt: Any) -> None:
    button, told = qt.QPushButton(), []

    class Receiver:
        def on(self) -> None:
            told.append("called")

    button.clicked.connect(Receiver().on)
    button.click()
    assert told == ["called"]


def test_a_receiver_can_be_disconnected(qt: Any) -> None:
    listener, button = Listener(), qt.QPushButton()
    button.clicked.connect(listener.nothing)
    button.clicked.disconnect(listener.nothing)
    button.click()
    assert listener.told == []


def test_a_signal_is_emitted_by_a_call_and_by_emit(qt: Any) -> None:
    listener, box = Listener(), qt.QCheckBox()
    box.toggled.connect(listener.one)
    box.toggled(True)
    box.toggled.emit(False)
    assert listener.told == [True, False]


def test_none_as_a_text_shows_the_word(qt: Any) -> None:
    label = qt.QLabel("before")
    label.text = None
    assert label.text == "None"


@pytest.mark.parametrize("name", ["QPushButton", "QTableWidgetItem", "QTimer"])
def test_a_constructor_takes_no_keyword_arguments(qt: Any, name: str) -> None:
    with pytest.raises(ValueError, match="keyword"):
        getattr(qt, name)(parent=None)


def test_an_unknown_attribute_is_an_error(qt: Any) -> None:
    with pytest.raises(AttributeError):
        _ = qt.QPushButton().tooltip


def test_a_program_that_cannot_be_started_does_not_finish(application: Application, qt: Any) -> None:
    listener, process = Listener(), qt.QProcess()
    process.finished.connect(listener.everything)
    process.errorOccurred.connect(listener.nothing)
    process.start("/nonexistent/program", [])
    while not listener.told:
        application.process()
    assert listener.told == ["nothing"]


@pytest.mark.parametrize("name", ["Signal", "Slot", "Property", "QInputDialog"])
def test_what_must_not_be_used_is_not_there(qt: Any, name: str) -> None:
    assert not hasattr(qt, name)


def test_a_class_is_an_instance_of_itself_alone(qt: Any) -> None:
    button = qt.QPushButton()
    assert isinstance(button, qt.QPushButton)
    assert not isinstance(button, qt.QWidget)
    assert button.inherits("QWidget")


def test_single_shots_are_refused_in_every_form(qt: Any) -> None:
    with pytest.raises(AttributeError, match="leaks"):
        qt.QTimer.singleShot(0, print)
    timer = qt.QTimer()
    with pytest.raises(AttributeError):
        timer.singleShot = True
    timer.setSingleShot(True)
    timer.interval = 5
    assert timer.interval == 5


@pytest.mark.parametrize(("owner", "enumeration"), [("QImage", "Format"), ("QFont", "Weight"), ("QEvent", "Type")])
def test_enumerations_of_what_is_no_widget_are_flat_too(qt: Any, owner: str, enumeration: str) -> None:
    scoped = getattr(getattr(qt, owner), enumeration)
    with pytest.raises(AttributeError, match="without"):
        _ = scoped.Anything
    assert hasattr(qt.QImage, "Format_RGB888")


def test_a_list_of_strings_arrives_as_a_tuple(qt: Any) -> None:
    browser = qt.QTextBrowser()
    browser.searchPaths = ["one", "two"]
    assert browser.searchPaths == ("one", "two")


def test_a_file_dialog_returns_the_name_alone(qt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("getOpenFileName", "getSaveFileName"):
        monkeypatch.setattr(QtWidgets.QFileDialog, name, lambda *_: ("model.zip", "Models (*.zip)"))
        assert getattr(qt.QFileDialog, name)(None, "Title", "", "Models (*.zip)") == "model.zip"


def test_setters_and_getters_of_properties_work_as_well(qt: Any) -> None:
    button = qt.QPushButton()
    button.setVisible(False)
    button.setText("Go")
    assert not button.isVisible()
    assert button.text == "Go"


def test_an_unknown_signal_of_the_application_fails(application: Application) -> None:
    with pytest.raises(KeyError):
        application.app.connect("startUpCompleted()", print)
