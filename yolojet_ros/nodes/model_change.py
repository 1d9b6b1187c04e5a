"""One change of the model of a running detector: beside the old one, in its place, or back."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, wait
import math
import threading
import time
import traceback
from typing import Any, Callable, Deque, List, Optional, Protocol, Sequence, Tuple

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.text import one_line
from yolojet_ros.inference.backend import Backend
from yolojet_ros.nodes.detector_parameters import DetectorParameters
from yolojet_ros.nodes.frame_worker import FrameWorker
from yolojet_ros.nodes.loading import load_detector
from yolojet_ros.nodes.outputs.outputs import kinds
from yolojet_ros.nodes.watched_camera import WatchedCamera
from yolojet_ros.operate.model_store import ModelStore, StoredModel
from yolojet_ros.operate.model_trial import Trial, Verification
from yolojet_ros.pipeline.detector import Detector
from yolojet_ros.pipeline.stream import Frame

_IMAGE_SECONDS = 10.0  # within which an image must come to verify a model on
_FINISH_SECONDS = 5.0  # that the images in work may take before the other model has its turn
_LOAD_SECONDS = 600.0  # that a model may load
_RESULT_SECONDS = 60.0  # in which it must have looked at an image; the first takes longest
_NEVER = (math.inf, 0.0)
_ABANDON_SECONDS = 1.0  # that a load which nobody waits for may still take


class _Unjudged(UserError):
    """A version could not be verified, for a cause that is not its own."""


class Changed(Protocol):
    """
    The node whose model is changed, besides what every node has.

    detector, worker: what it has now; a change replaces the detector in the worker's thread
    """

    cameras: Sequence[WatchedCamera]
    detector: Detector
    worker: FrameWorker


class Owner(Protocol):
    """Whoever began a change and is told of it, by its thread."""

    def on_version(self, stored: Optional[StoredModel]) -> None:
        """Take which version of the store runs from now on; None for a model of no store."""

    def on_refusal(self, text: str) -> None:
        """Say that a version was refused, or gone back from."""

    def reload(self, change: ModelChange) -> None:
        """Configure anew with what the store has active now, unless something else is at work."""


class ModelChange:
    """
    The way of one version from the store to the images, in a thread of its own.

    It is loaded while the old model works on. Both see a number of live images. Between two images
    the one takes the place of the other, and the old model stays in memory until the new one has
    worked for its first minute. What speaks against the new one leads back to the old one, in the
    node and in the store.

    :param stored: what the store has active
    :param before: the version that runs now, None for a model of no store
    :param usual: latencies of the model that runs now, in milliseconds
    :param answer: called once, with whether the version runs, and a sentence

    `on_frame` and `rescue` are called by the thread of the frames.
    """

    def __init__(
        self, node: Changed, owner: Owner, store: ModelStore, stored: StoredModel,
        before: Optional[StoredModel], used: DetectorParameters, usual: Sequence[float] = (),
        answer: Callable[[bool, str], None] = lambda runs, text: None,
    ) -> None:
        self._node, self._owner, self._store, self._used = node, owner, store, used
        self._stored, self._before = stored, before
        self._usual = usual
        self._answer: Optional[Callable[[bool, str], None]] = answer
        self._old: Optional[Detector] = None
        self._new: Optional[Detector] = None
        self._trial: Optional[Trial] = None
        self._frames: Optional[Deque[Frame]] = None  # the newest, while they are looked at
        self._changed = threading.Condition()
        self._over = False  # nobody waits for a verdict any more
        self._phase = 'loading'
        self._deadline = _LOAD_SECONDS, time.monotonic()  # of what may hang, and since when
        self._thread: Optional[threading.Thread] = None

    def start(self) -> None:
        """Begin to bring the version to the images."""
        self._begin(self._bring)

    def watch(self) -> None:
        """Begin to watch the version, which was configured: there is no model beside it."""
        self._new = self._node.detector
        self._trial = Trial(self._used.trial_seconds)
        self._deadline = _NEVER
        self._begin(self._judge)

    def _begin(self, run: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=run, name='model_change', daemon=True)
        self._thread.start()

    @property
    def phase(self) -> str:
        """Return what is being done, '' if it is over."""
        if not self._thread.is_alive():
            return ''
        trial = self._trial
        phase = self._phase if trial is None else f'on trial for {trial.left:.0f} s more'
        return f'{phase}: {self._stored.version}'

    @property
    def on_trial(self) -> bool:
        """Return whether the new model works, and may be gone back from."""
        return self._trial is not None and self._thread.is_alive()

    @property
    def backends(self) -> List[Backend]:
        """Return those of both models, of one where it has no other beside it."""
        return [each.backend for each in (self._new, self._old) if each is not None]

    def abandon(self, seconds: float = _ABANDON_SECONDS) -> None:
        """
        Give it up where it stands, without a verdict.

        Either the worker has stopped and closed what it ran, or another version is wanted in the
        place of the one on trial.

        :param seconds: to wait for the end of the thread
        """
        with self._changed:
            self._over = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(seconds)
        self._say(False, 'the node was told to stop meanwhile')

    def look(self) -> bool:
        """
        Give the version up if it hangs; return whether it does. Called by the executor's thread.

        What hangs cannot be ended: its thread, and its model, are left to the end of the process.
        """
        limit, begun = self._deadline
        if self._over or time.monotonic() - begun < limit:
            return False
        self._over = True
        reason = f'it has given no result for {limit:.0f} s while {self._phase}'
        text = f'version {self._stored.version} is refused: {reason}'
        text += self._store_goes_back(reason)[1]
        self._owner.on_refusal(text)
        self._say(False, text)
        return True

    # ---- the thread of the frames

    def on_frame(self, frame: Frame) -> None:
        """Take a published result."""
        trial, frames = self._trial, self._frames
        if frames is not None:
            frames.append(frame)
            self._notify()
        if trial is None or trial.verdict is not None:
            return
        total = frame.times.total
        if self._node.detector is self._new:
            changed = trial.on_frame(total, frame.detections.broken)
        else:
            changed = bool(trial.slow) and trial.compare(total)
        if changed:
            self._notify()

    def rescue(self, error: Exception) -> Optional[Detector]:
        """Return the old model's detector if the new one failed on its trial, else None."""
        trial = self._trial
        if trial is None or trial.verdict is not None or self._node.detector is not self._new:
            return None
        other = self._old
        trial.fail(f'{type(error).__name__}: {one_line(str(error))}')
        try:
            if other is not None:
                self._adopt(other)
        except UserError:  # by a filter that was set a moment ago; the store goes back
            other = None
        self._notify()
        return other

    def _adopt(self, detector: Detector) -> None:
        """:raises UserError: if a filter names a class that it has not; nothing changes then."""
        for camera in self._node.cameras:
            camera.stream_for(detector.backend.card)
        for camera in self._node.cameras:
            camera.adopt(detector.backend)
        self._node.detector = detector

    # ---- its own thread

    def _bring(self) -> None:
        try:
            self._stored = self._store.start_trial()
            self._new = load_detector(str(self._stored.model), self._used)
            self._verify()
            self._old = self._node.detector
            self._trial = Trial(
                self._used.trial_seconds, () if self._stored.confirmed else self._usual)
            self._change_to(self._new)
        except Exception as error:
            self._refuse(error)
            return
        self._owner.on_version(self._stored)
        text = (f'version {self._stored.version} runs now, on trial for '
                f'{self._used.trial_seconds:.0f} s')
        self._node.get_logger().info(text)
        self._say(True, text)
        self._judge()

    def _verify(self) -> None:
        """Let both models see live images; raises what speaks against the new one."""
        old, new = self._node.detector.backend, self._new.backend
        if kinds(new) != kinds(old):
            raise UserError(
                f'it is a model to {new.card.task} and has other topics than the one that runs, a '
                f'model to {old.card.task}; clean up the node and configure it to change over')
        self._used.resolve(new.card.names)
        streams = {camera: camera.stream_for(new.card) for camera in self._node.cameras}
        verification = Verification(
            self._used.verification_frames, new.card.names == old.card.names,
            self._stored.confirmed)
        self._frames = frames = deque(maxlen=1)
        try:
            while verification.done < verification.frames:
                self._phase = f'verifying ({verification.done} of {verification.frames} images)'
                self._deadline = _NEVER
                before = self._next(frames)
                job = before.context
                self._deadline = _RESULT_SECONDS, time.monotonic()
                after = self._new.process(streams[job.camera], job.view, 0.0)
                verification.add(before.detections, before.times.total,
                                 after.detections, after.times.total)
        finally:
            self._frames, self._deadline = None, _NEVER
        self._phase = 'switching'
        if verification.fault:
            raise UserError(verification.fault)

    def _next(self, frames: Deque[Frame]) -> Frame:
        """Wait for an image that the old model has seen."""
        with self._changed:
            self._changed.wait_for(lambda: frames or self._over, _IMAGE_SECONDS)
        if self._over:
            raise _Unjudged('the node was told to stop meanwhile')
        if not frames:
            raise _Unjudged(f'no image came within {_IMAGE_SECONDS:.0f} s to verify it on; see '
                            'that a camera publishes, and call load_model again')
        return frames.popleft()

    def _change_to(self, detector: Detector) -> None:
        """Have the worker put a model in the place of the other, with nothing in flight."""
        done: Future = Future()

        def change(_: Detector) -> None:
            if self._over:  # the worker may be that of another configuration
                done.cancel()
            if done.set_running_or_notify_cancel():
                try:
                    self._node.worker.finish()
                    self._adopt(detector)
                    self._node.worker.replace(detector)
                except Exception as error:
                    done.set_exception(error)
                    if not isinstance(error, UserError):
                        raise
                else:
                    done.set_result(None)
        self._node.worker.call(change)
        if (not wait([done], _FINISH_SECONDS).done and done.cancel()) or done.cancelled():
            raise _Unjudged(f'an image has been in work for {_FINISH_SECONDS:.0f} s; call '
                            'load_model again')
        done.result()

    def _judge(self) -> None:
        """Wait for the end of the trial; keep the version, or go back."""
        trial = self._trial
        while self._wait_for(lambda: trial.verdict is not None or trial.slow) and trial.slow:
            self._compare(trial)
        if trial.verdict == '':
            self._keep()
        elif trial.verdict is not None:
            self._go_back(trial.verdict)
        else:
            self._end_trial()
            if self._node.detector is self._old:  # it was compared just now
                self._owner.on_version(self._before)
        for detector in (self._old, self._new):
            if detector is not None and detector is not self._node.detector:
                detector.backend.close()

    def _wait_for(self, condition: Callable[[], Any]) -> bool:
        """Return whether a condition has come true before the change was abandoned."""
        with self._changed:
            self._changed.wait_for(lambda: condition() or self._over)
        return not self._over

    def _compare(self, trial: Trial) -> None:
        """Let the old model work for some images: perhaps the machine is busier than it was."""
        try:
            self._change_to(self._old)
            if self._wait_for(lambda: not trial.slow) and trial.verdict is None:
                self._change_to(self._new)
        except Exception as error:  # by a filter that was set a moment ago
            trial.fail(f'{trial.slow}; {one_line(str(error))}')

    def _keep(self) -> None:
        text = f'version {self._stored.version} has run well'
        try:
            self._store.confirm(self._stored.version)
        except UserError as error:
            self._owner.on_refusal(f'{text}, but the store cannot keep that: {error}')
            return
        self._node.get_logger().info(f'{text} and is kept')

    def _go_back(self, reason: str) -> None:
        anew, fault = self._old is None or self._node.worker.failed, ''
        try:  # first of all: nothing is to wait for a store that another process holds
            if not anew and self._node.detector is not self._old:
                self._change_to(self._old)
        except Exception as error:  # whatever it is, there is one more way
            anew, fault = True, f'; the model before cannot go on: {one_line(str(error))}'
        went, told = self._store_goes_back(reason)
        what = f'version {self._stored.version}'
        what = f'{what} fails' if anew and not went else f'went back from {what}'
        self._owner.on_refusal(f'{what}: {reason}{told}{fault}')
        if not anew:
            self._owner.on_version(self._before)
        elif went and not self._over:
            self._owner.reload(self)

    def _refuse(self, error: Exception) -> None:
        """Leave the node with the old model, and the store, too."""
        self._node.get_logger().debug(traceback.format_exc())
        if self._new is not None:
            self._new.backend.close()
        reason = one_line(str(error))
        text = f'version {self._stored.version} is refused: {reason}'
        if isinstance(error, _Unjudged):  # nothing speaks against it
            text = f'version {self._stored.version} does not run yet: {reason}'
            self._end_trial()
        else:
            text += self._store_goes_back(reason)[1]
        if not self._over:
            self._owner.on_refusal(text)
        self._say(False, text)

    def _say(self, runs: bool, text: str) -> None:
        """Answer who asked for the version, once."""
        with self._changed:
            answer, self._answer = self._answer, None
        if answer is not None:
            answer(runs, text)

    def _end_trial(self) -> None:
        """Have the store count no failure where the node was told to stop."""
        try:
            self._store.end_trial(self._stored.version)
        except UserError as error:
            self._node.get_logger().warning(f'the store cannot be told of the end: {error}')

    def _store_goes_back(self, reason: str) -> Tuple[bool, str]:
        """Let the store go back; return whether it has, and what is to be said of it."""
        if self._stored.confirmed:  # somebody has gone back to it, and is to decide
            return False, '; the store still has it active, as it ran well before'
        try:
            before = self._store.give_up(self._stored.version, reason)
        except UserError as error:
            return False, f'; the store does not go back: {error}'
        text = f'; the store has version {before.version} active again'
        if self._before is not None and before.version != self._before.version:
            text += f', and version {self._before.version} runs until load_model is called'
        return True, text

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()
