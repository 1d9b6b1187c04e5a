"""Load the model of a detector; what does so knows no node, so that it may be abandoned."""

from __future__ import annotations

from typing import Optional

from yolojet_ros.core.files import home_path, real_path
from yolojet_ros.core.text import one_line
from yolojet_ros.inference.load import load_backend
from yolojet_ros.nodes.detector_parameters import DetectorParameters
from yolojet_ros.operate.model_store import ModelStore, StoredModel
from yolojet_ros.pipeline.detector import Detector


def load_detector(model: str, used: DetectorParameters) -> Detector:
    """:raises UserError: if the model cannot be used."""
    backend = load_backend(
        model, used.backend, used.device, used.pipeline_depth, used.plugins, used.cpu_threads,
        used.cpu_spinning, used.input_size)
    backend.file = str(real_path(home_path(model)))
    return Detector(backend)


class Loading:
    """
    What a node loads when it is configured.

    :param model: the file; '' for what the model store has active
    :ivar stored: the version of the store, None for a model of no store
    :ivar warning: that another version was gone back from at this start
    """

    def __init__(self, model: str, used: DetectorParameters) -> None:
        self._model, self._used = model, used
        self.stored: Optional[StoredModel] = None
        self.warning = ''

    def run(self) -> Detector:
        """
        Load it; a version that has not proved itself gives way to the one before.

        :raises UserError: if the model cannot be used, nor the version before.
        """
        if self._model:
            return load_detector(self._model, self._used)
        store = ModelStore(self._used.model_store)
        active = store.states.read().active
        self.stored = store.start_trial()
        if self.stored.version != active:
            self.warning = (f'went back from version {active} to {self.stored.version}: '
                            f'{self.stored.went_back}')
        try:
            return load_detector(str(self.stored.model), self._used)
        except Exception as error:
            if self.stored.confirmed:
                raise
            failed, reason = self.stored.version, f'it cannot be loaded: {one_line(str(error))}'
        self.stored = store.give_up(failed, reason)
        self.warning = f'went back from version {failed} to {self.stored.version}: {reason}'
        return load_detector(str(self.stored.model), self._used)
