"""What a detector runs of a model store: at its start, and when the store has another version."""

from __future__ import annotations

from collections import deque
from typing import Callable, Deque, Dict, List, Optional, Tuple

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.task import Future
from std_srvs.srv import Trigger

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.nodes.detector_parameters import DetectorParameters
from yolojet_ros.nodes.loading import Loading
from yolojet_ros.nodes.model_change import Changed, ModelChange
from yolojet_ros.operate.model_store import ModelStore, StoredModel
from yolojet_ros.pipeline.detector import Detector
from yolojet_ros.pipeline.stream import Frame

_USUAL = 100  # images by which the latency of a model is known
_FREE_SECONDS = 10.0  # that a trial may take to end, and its old model to be freed


class Updated(Changed):
    """A lifecycle node with what a change needs; `active` while it works on images."""

    active: bool


class ModelUpdate:
    """
    The service `~/load_model`, and the change that is on its way.

    `on_frame` and `rescue` are called by the thread of the frames.

    :ivar running: the version that runs, None for a model of no store
    :ivar warning: that a version was refused, or gone back from, until the next update
    """

    def __init__(self, node: Updated) -> None:
        self.running: Optional[StoredModel] = None
        self.warning = ''
        self._node = node
        self._change: Optional[ModelChange] = None
        self._reloading: Optional[ModelChange] = None
        self._usual: Deque[float] = deque(maxlen=_USUAL)
        self._answers: Deque[Tuple[Future, bool, str]] = deque()
        self._answered = node.create_guard_condition(self._answer)
        self._reload = node.create_guard_condition(self._on_reload)
        # Awaits the end of an update; others of the node's callbacks are called meanwhile.
        node.create_service(Trigger, '~/load_model', self._on_load_model,
                            callback_group=ReentrantCallbackGroup())

    def watch_first(self, loaded: Loading, used: DetectorParameters) -> None:
        """Take what was configured; watch its first minute if it has not proved itself."""
        self.running = loaded.stored
        if loaded.warning:
            self.on_refusal(loaded.warning)
        if self.running and not self.running.confirmed:
            self._change = ModelChange(
                self._node, self, ModelStore(used.model_store), self.running, None, used)
            self._change.watch()

    def start(self, used: DetectorParameters, answer: Callable[[bool, str], None]) -> None:
        """
        Begin to bring the node to what the store has active.

        :param answer: called once, by any thread, with whether that runs, and a sentence
        """
        try:
            stored = self._wanted(used)
        except UserError as error:
            answer(False, str(error))
            return
        if self.running and (stored.folder, stored.manifest) == (
                self.running.folder, self.running.manifest):
            text = f'version {stored.version} runs already'
            self._node.get_logger().info(text)
            answer(True, text)
            return
        if self._change and self._change.on_trial:  # the store has decided otherwise
            self._change.abandon(_FREE_SECONDS)
        self.warning = ''
        self._change = ModelChange(
            self._node, self, ModelStore(used.model_store), stored, self.running, used,
            list(self._usual), answer)
        self._usual.clear()  # what comes may be of either model
        self._change.start()

    def check(self, used: DetectorParameters) -> None:
        """:raises UserError: if a store cannot be set while the node is configured."""
        if not used.model_store and self.running:
            raise UserError(f'version {self.running.version} of a model store runs; clean up the '
                            'node before model_store is emptied')
        if used.model_store:
            self._wanted(used)

    def _wanted(self, used: DetectorParameters) -> StoredModel:
        """Return what is to run; raises why nothing can be changed now."""
        if not used.model_store:
            raise UserError('model_store is not set; set it to the folder that "yolojet '
                            'model-store" works on')
        if not self._node.active:
            raise UserError('the node is not active, and a new model is verified on live images; '
                            'activate it, or clean up and configure it, which loads it, too')
        phase = self._change.phase if self._change else ''
        if phase and not self._change.on_trial:
            raise UserError(f'an update is on its way ({phase}); ask again when it is over')
        return ModelStore(used.model_store).active()

    def end(self) -> None:
        """Give up what is on its way; the worker has stopped."""
        change, self._change = self._change, None
        if change:
            change.abandon()
        self.running = None
        self._usual.clear()

    def cards(self) -> List[ModelCard]:
        """Return the models that parameters must fit: what runs, and what may be gone back to."""
        change, detector = self._change, self._node.detector
        backends = change.backends if change and change.on_trial else []
        return [backend.card for backend in backends or [detector.backend]]

    def look(self) -> None:
        """Give up a change that hangs; called now and then by the executor's thread."""
        if self._change and self._change.phase and self._change.look():
            self._change = None

    def values(self) -> Dict[str, str]:
        """Return what diagnostics say of it."""
        phase = self._change.phase if self._change else ''
        values = {'model_version': self.running.version} if self.running else {}
        return {**values, 'model_update': phase} if phase else values

    def on_frame(self, frame: Frame) -> None:
        """Take a published result."""
        self._usual.append(frame.times.total)
        change = self._change
        if change is not None:
            change.on_frame(frame)

    def rescue(self, error: Exception) -> Optional[Detector]:
        """Return the detector to go on with where one on trial failed, None if there is none."""
        change = self._change
        return change.rescue(error) if change is not None else None

    # ---- what a change tells

    def on_version(self, stored: Optional[StoredModel]) -> None:
        """Take which version of the store runs from now on."""
        self.running = stored

    def on_refusal(self, text: str) -> None:
        """Say that a version was refused, or gone back from, in the log and in diagnostics."""
        self.warning = text
        self._node.get_logger().error(text)

    def reload(self, change: ModelChange) -> None:
        """Have the node configured anew, with what the store has active now."""
        self._reloading = change
        self._reload.trigger()

    def _on_reload(self) -> None:
        node = self._node
        if self._change is None or self._reloading is not self._change:
            return  # somebody has cleaned up since
        if node.active:
            node.trigger_deactivate()
        node.trigger_cleanup()
        if node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            node.trigger_activate()

    # ---- the service

    async def _on_load_model(
        self, request: Trigger.Request, response: Trigger.Response,
    ) -> Trigger.Response:
        future = Future()

        def answer(runs: bool, text: str) -> None:
            self._answers.append((future, runs, text))
            self._answered.trigger()
        self.start(DetectorParameters.read(self._node), answer)
        response.success, response.message = await future
        return response

    def _answer(self) -> None:
        # A future that another thread completes would not wake the executor.
        while self._answers:
            future, runs, text = self._answers.popleft()
            future.set_result((runs, text))
