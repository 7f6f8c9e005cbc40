"""The LeNet training step in each system, and the process that runs one of them.

`python benchmarks/peers.py NAME THREADS` reads one JSON object a line from standard input and answers with one a line:

    {"do": "start"}                                            import the library
    {"do": "prepare", "batch": 64, "steps": 4}                 new network and data; the first step is timed
    {"do": "measure", "seconds": 0.5, "sync_every": 10}        times of single steps

Every system gets the same weights and data, made by NumPy from a fixed seed: convolutions 3x3 (1 to 6, 6 to 16
channels), each with ReLU and 2x2 max pooling, linear layers 576-120-84-10, cross-entropy, plain SGD with learning rate
0.01.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

RATE = 0.01
SHAPES = {
    "conv1.weight": (6, 1, 3, 3),
    "conv1.bias": (6,),
    "conv2.weight": (16, 6, 3, 3),
    "conv2.bias": (16,),
    "fc1.weight": (120, 576),
    "fc1.bias": (120,),
    "fc2.weight": (84, 120),
    "fc2.bias": (84,),
    "fc3.weight": (10, 84),
    "fc3.bias": (10,),
}
FANS = {"conv1": 9, "conv2": 54, "fc1": 576, "fc2": 120, "fc3": 84}

# Makes one training step and gives the loss, in whatever form the system has it.
Step = Callable[[], Any]


def initial_weights() -> dict[str, np.ndarray]:
    """The weights that all systems start from: U(-b, b) with b = 1/sqrt(fan-in), as PyTorch's layers draw them."""
    rng = np.random.default_rng(0)
    bounds = {name: FANS[name.partition(".")[0]] ** -0.5 for name in SHAPES}
    return {name: rng.uniform(-bounds[name], bounds[name], shape).astype(np.float32) for name, shape in SHAPES.items()}


def samples(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Images f32 [batch,1,32,32] and labels i64 [batch]."""
    rng = np.random.default_rng(batch)
    return rng.standard_normal((batch, 1, 32, 32), np.float32), rng.integers(0, 10, batch)


class Peer:
    """One system: `start` imports it for a number of threads, `prepare` makes a network and gives its training step."""

    def start(self, threads: int) -> str:
        """Imports the system; its version."""
        raise ImportError("a peer must define start")

    def prepare(self, images: np.ndarray, labels: np.ndarray) -> Step:
        """The training step on fixed data."""
        raise ImportError("a peer must define prepare")

    def read(self, loss: Any) -> float:
        """The value of a loss; waits until it is computed."""
        return float(loss)


class TorchLike(Peer):
    """PyTorch, and graphc by the same code. `compile_what` is None, "loss" (forward only) or "step" (everything)."""

    def __init__(self, package: str, compile_what: str | None) -> None:
        self.package = package
        self.compile_what = compile_what

    def start(self, threads: int) -> str:
        self.torch: Any = importlib.import_module(self.package)
        self.nn: Any = importlib.import_module(f"{self.package}.nn")
        self.F: Any = importlib.import_module(f"{self.package}.nn.functional")
        self.optim: Any = importlib.import_module(f"{self.package}.optim")
        self.torch.set_num_threads(threads)
        return self.torch.__version__

    def network(self) -> Any:
        """The network with the initial weights."""
        torch, nn, F = self.torch, self.nn, self.F

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv1 = nn.Conv2d(1, 6, 3)
                self.conv2 = nn.Conv2d(6, 16, 3)
                self.fc1 = nn.Linear(576, 120)
                self.fc2 = nn.Linear(120, 84)
                self.fc3 = nn.Linear(84, 10)

            def forward(self, x: Any) -> Any:
                x = F.max_pool2d(F.relu(self.conv1(x)), 2)
                x = F.max_pool2d(F.relu(self.conv2(x)), 2)
                x = x.flatten(1)
                return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))

        net = Net()
        net.load_state_dict({name: torch.tensor(value) for name, value in initial_weights().items()})
        return net

    def prepare(self, images: np.ndarray, labels: np.ndarray) -> Step:
        net, F = self.network(), self.F
        optimizer = self.optim.SGD(net.parameters(), lr=RATE)
        x, y = self.torch.tensor(images), self.torch.tensor(labels)

        def loss_of(x: Any, y: Any) -> Any:
            return F.cross_entropy(net(x), y)

        if self.compile_what == "loss":
            loss_of = self.torch.compile(loss_of)

        def train(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = loss_of(x, y)
            loss.backward()
            optimizer.step()
            return loss

        if self.compile_what == "step":
            train = self.torch.compile(train)
        return lambda: train(x, y)

    def read(self, loss: Any) -> float:
        return loss.item()


class Jax(Peer):
    """JAX, the whole step under `jit`."""

    def start(self, threads: int) -> str:
        flags = f"--xla_cpu_multi_thread_eigen={str(threads > 1).lower()} intra_op_parallelism_threads={threads}"
        os.environ["XLA_FLAGS"] = flags
        self.jax: Any = importlib.import_module("jax")
        return self.jax.__version__

    def prepare(self, images: np.ndarray, labels: np.ndarray) -> Step:
        jax: Any = self.jax
        jnp, lax = jax.numpy, jax.lax
        state = {"weights": {name: jnp.asarray(value) for name, value in initial_weights().items()}}

        def convolve(x: Any, w: dict[str, Any], layer: str) -> Any:
            out = lax.conv_general_dilated(x, w[f"{layer}.weight"], (1, 1), "VALID")
            out = jax.nn.relu(out + w[f"{layer}.bias"][None, :, None, None])
            return lax.reduce_window(out, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")

        def linear(x: Any, w: dict[str, Any], layer: str) -> Any:
            return x @ w[f"{layer}.weight"].T + w[f"{layer}.bias"]

        def loss_of(w: dict[str, Any], x: Any, y: Any) -> Any:
            x = convolve(convolve(x, w, "conv1"), w, "conv2")
            x = x.reshape(x.shape[0], -1)
            x = linear(jax.nn.relu(linear(jax.nn.relu(linear(x, w, "fc1")), w, "fc2")), w, "fc3")
            return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], 1))

        @jax.jit
        def train(w: dict[str, Any], x: Any, y: Any) -> Any:
            loss, gradients = jax.value_and_grad(loss_of)(w, x, y)
            return {name: w[name] - RATE * gradients[name] for name in w}, loss

        x, y = jnp.asarray(images), jnp.asarray(labels.astype(np.int32))

        def step() -> Any:
            state["weights"], loss = train(state["weights"], x, y)
            return loss

        return step


class Tinygrad(Peer):
    """tinygrad, the whole step under `TinyJit`."""

    def start(self, threads: int) -> str:
        os.environ["CPU_COUNT"] = str(threads)
        # Newer versions read the training mode here, older ones on the class.
        os.environ["TRAINING"] = "1"
        self.tinygrad: Any = importlib.import_module("tinygrad")
        self.optim: Any = importlib.import_module("tinygrad.nn.optim")
        return importlib.import_module("importlib.metadata").version("tinygrad")

    def prepare(self, images: np.ndarray, labels: np.ndarray) -> Step:
        Tensor: Any = self.tinygrad.Tensor
        Tensor.training = True
        weights = {name: Tensor(value).realize() for name, value in initial_weights().items()}
        optimizer = self.optim.SGD(list(weights.values()), lr=RATE)
        x, y = Tensor(images).realize(), Tensor(labels.astype(np.int32)).realize()

        def loss_of(x: Any, y: Any) -> Any:
            for layer in ("conv1", "conv2"):
                x = x.conv2d(weights[f"{layer}.weight"], weights[f"{layer}.bias"]).relu().max_pool2d()
            x = x.flatten(1)
            for layer in ("fc1", "fc2"):
                x = x.linear(weights[f"{layer}.weight"].transpose(), weights[f"{layer}.bias"]).relu()
            x = x.linear(weights["fc3.weight"].transpose(), weights["fc3.bias"])
            return x.sparse_categorical_crossentropy(y)

        @self.tinygrad.TinyJit
        def train(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = loss_of(x, y).backward()
            # Together, so that the loss is that of the weights before the step.
            return loss.realize(*optimizer.schedule_step())

        return lambda: train(x, y)

    def read(self, loss: Any) -> float:
        return loss.item()


PEERS: dict[str, Peer] = {
    "graphc": TorchLike("graphc", None),
    "graphc-compiled": TorchLike("graphc", "step"),
    "torch": TorchLike("torch", None),
    "torch-compile": TorchLike("torch", "loss"),
    "jax": Jax(),
    "tinygrad": Tinygrad(),
}


class Worker:
    """Answers the requests of one session."""

    def __init__(self, name: str, threads: int) -> None:
        self.peer = PEERS[name]
        self.threads = threads
        self.step: Step | None = None

    def start(self) -> dict[str, Any]:
        """Imports the system."""
        begin = time.perf_counter()
        version = self.peer.start(self.threads)
        return {"version": version, "import_s": time.perf_counter() - begin}

    def prepare(self, batch: int, steps: int) -> dict[str, Any]:
        """Makes the step, times its first call, and gives the losses of the first `steps` steps."""
        self.step = self.peer.prepare(*samples(batch))
        begin = time.perf_counter()
        losses = [self.peer.read(self.step())]
        first = time.perf_counter() - begin
        losses += [self.peer.read(self.step()) for _ in range(steps - 1)]
        return {"first_s": first, "losses": losses}

    def measure(self, seconds: float, sync_every: int) -> dict[str, Any]:
        """Seconds a step, the loss being read after every `sync_every` steps."""
        assert self.step is not None, "measure comes after prepare"
        times: list[float] = []
        end = time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            begin = time.perf_counter()
            loss: Any = None
            for _ in range(sync_every):
                loss = self.step()
            self.peer.read(loss)
            times.append((time.perf_counter() - begin) / sync_every)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return {"median_s": statistics.median(times), "min_s": min(times), "chunks": len(times), "peak_bytes": peak}


def main() -> None:
    # Libraries print to standard output; the answers go out on a descriptor that only this function knows.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker(sys.argv[1], int(sys.argv[2]))
    for line in sys.stdin:
        request = json.loads(line)
        action = {"start": worker.start, "prepare": worker.prepare, "measure": worker.measure}[request.pop("do")]
        try:
            answer = action(**request)
        except ModuleNotFoundError as error:
            answer = {"missing": str(error)}
        except Exception as error:  # whatever a peer raises is reported as its result
            answer = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
