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
    """Records the calls of its methods."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def nothing(self) -> None:
        self.calls.append("nothing")

    def one(self, value: bool) -> None:
        self.calls.append(value)

    def default(self, force: str = "no") -> None:
        self.calls.append(force)

    def keyword(self, *, force: str = "no") -> None:
        self.calls.append(force)

    def everything(self, *values: Any) -> None:
        self.calls.append(values)


@pytest.mark.parametrize(
    ("handler", "call"),
    [("nothing", "nothing"), ("one", False), ("default", False), ("keyword", "no"), ("everything", (False,))],
)
def test_a_handler_gets_as_many_arguments_as_it_has_parameters(qt: Any, handler: str, call: Any) -> None:
    listener, button = Listener(), qt.QPushButton()
    button.clicked.connect(getattr(listener, handler))
    button.click()
    assert listener.calls == [call]


def test_a_callable_that_is_no_function_gets_every_argument(qt: Any) -> None:
    calls: list[Any] = []
    button = qt.QPushButton()
    button.clicked.connect(functools.partial(lambda *values: calls.append(values), "given"))
    button.clicked.connect(calls.append)
    button.click()
    assert calls == [("given", False), False]


def test_a_connection_holds_its_receiver(qt: Any) -> None:
    button, calls = qt.QPushButton(), []

    class Receiver:
        def on(self) -> None:
            calls.append("called")

    button.clicked.connect(Receiver().on)
    button.click()
    assert calls == ["called"]


def test_a_receiver_can_be_disconnected(qt: Any) -> None:
    listener, button = Listener(), qt.QPushButton()
    button.clicked.connect(listener.nothing)
    button.clicked.disconnect(listener.nothing)
    button.click()
    assert listener.calls == []


def test_a_signal_is_emitted_by_a_call_and_by_emit(qt: Any) -> None:
    listener, box = Listener(), qt.QCheckBox()
    box.toggled.connect(listener.one)
    box.toggled(True)
    box.toggled.emit(False)
    assert listener.calls == [True, False]


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
    while not listener.calls:
        application.process()
    assert listener.calls == ["nothing"]


@pytest.mark.parametrize("name", ["Signal", "Slot", "Property", "QInputDialog"])
def test_names_that_must_not_be_used_are_missing(qt: Any, name: str) -> None:
    assert not hasattr(qt, name)


def test_isinstance_is_true_for_the_exact_class_only(qt: Any) -> None:
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
def test_enumerations_of_classes_that_are_no_widgets_are_flat_too(qt: Any, owner: str, enumeration: str) -> None:
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
