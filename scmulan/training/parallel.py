"""How the processes of a run share it: one process, DDP, or FSDP2, as the configuration that `accelerate launch` was given says.

accelerate starts the processes and names the device; a gloo run on CPUs takes the same way as one on GPUs. FSDP2 shards each layer and
then the whole by `fully_shard`, on any device (accelerate's own wrapping needs GPUs).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.distributed.checkpoint import state_dict as whole_state
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.nn.parallel import DistributedDataParallel

from scmulan.errors import CheckpointError, RecipeError, some
from scmulan.training.hardware import multiplies_bf16
from scmulan.training.packed import PackedLM

Optimizers = list[torch.optim.Optimizer]


class Parallel:
    """The processes of a run and what they do together.

    Attributes
    ----------
    is_bf16 : whether products are in bfloat16: where that is wanted, and the hardware multiplies it
    strategy : ``single``, ``ddp`` or ``fsdp2``
    process, processes : this one's number, and how many there are
    """

    def __init__(self, precision: str, *, log_with: str | None = None, folder: str = "."):
        # by accelerate's default transformers would give all processes but the first zeros for weights, and wait for them to be sent
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
        AcceleratorState._reset_state()  # else a second run of a process could have no other precision than the first
        is_cpu = not torch.accelerator.is_available()
        self.is_bf16 = precision == "bf16" and multiplies_bf16("cpu" if is_cpu else str(torch.accelerator.current_accelerator()))
        self.accelerator = Accelerator(mixed_precision="bf16" if self.is_bf16 else "no", log_with=log_with, project_dir=folder, cpu=is_cpu)
        self.process: int = self.accelerator.process_index
        self.processes: int = self.accelerator.num_processes
        self.is_main: bool = self.accelerator.is_main_process
        self.device: torch.device = self.accelerator.device
        is_sharded = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
        self.strategy = "single" if self.processes == 1 else "fsdp2" if is_sharded else "ddp"

    def share_of(self, n_packs: int) -> int:
        """Packs of a step that each process reads; RecipeError when they can't be shared evenly."""
        if n_packs % self.processes:
            raise RecipeError(
                f"a step of {n_packs} packs can't be shared evenly by {self.processes} processes; "
                f"set packs_per_step to a multiple of {self.processes}"
            )
        return n_packs // self.processes

    def wrap(self, module: PackedLM, *, compiled: bool) -> torch.nn.Module:
        """The module on its device, compiled, and shared."""
        module.to(self.device)
        layers = module.lm.model.layers
        if self.strategy == "fsdp2":
            for layer in layers:
                if compiled:
                    layer.compile()
                self._shard(layer)
            self._shard(module)
            return module
        if compiled:
            module.lm.model.compile()
        if self.strategy == "ddp":
            return DistributedDataParallel(module, device_ids=[self.device.index] if self.device.type == "cuda" else None)
        return module

    def _shard(self, module: torch.nn.Module) -> None:
        mesh = init_device_mesh(self.device.type, (self.processes,))
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if self.is_bf16 else MixedPrecisionPolicy()
        fully_shard(module, mesh=mesh, mp_policy=policy)

    @contextlib.contextmanager
    def gradients(self, module: torch.nn.Module, *, is_last: bool) -> Iterator[None]:
        """Around forward and backward of one pack: gradients go between processes with the last pack of a step alone."""
        if isinstance(module, FSDPModule):
            module.set_requires_gradient_sync(is_last)
        waits = module.no_sync() if isinstance(module, DistributedDataParallel) and not is_last else contextlib.nullcontext()
        with waits, self.accelerator.autocast():
            yield

    def clip(self, module: torch.nn.Module, most: float) -> float:
        """Clip the gradient's norm; the norm before, over all processes."""
        norm = torch.nn.utils.clip_grad_norm_([p for p in module.parameters() if p.requires_grad], most)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def step(self, optimizers: Optimizers) -> None:
        """One step of each optimizer. Muon sees whole gradients: it turns matrices, which no process holds whole under FSDP2."""
        for optimizer in optimizers:
            if isinstance(optimizer, torch.optim.Muon):
                for parameter in (p for group in optimizer.param_groups for p in group["params"]):
                    if isinstance(parameter.grad, DTensor):
                        parameter.grad = parameter.grad.redistribute(placements=[Replicate()])
            optimizer.step()

    def sum(self, *values: float) -> list[float]:
        """Each value summed over the processes."""
        if self.processes == 1:
            return list(values)
        found = self.accelerator.reduce(torch.tensor(values, dtype=torch.float64, device=self.device), "sum")
        return [float(value) for value in found]

    def wait(self) -> None:
        """Until every process is here."""
        self.accelerator.wait_for_everyone()

    # -- state ------------------------------------------------------------------------------------------------------------

    def model_state(self, module: PackedLM) -> dict[str, Any]:
        """Trainable tensors whole and on the CPU, by name; empty on all processes but the first under FSDP2."""
        trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
        if self.strategy != "fsdp2":  # each process holds it whole; layers in 8 bits have states that are no tensors of theirs
            return {name: parameter.detach().cpu() for name, parameter in trained.items()}
        whole = whole_state.get_model_state_dict(module, options=_options())
        return {name: tensor for name, tensor in whole.items() if name in trained}  # a tied matrix has a second name

    def optimizer_state(self, module: PackedLM, optimizers: Optimizers) -> dict[str, Any]:
        """States of all optimizers whole and on the CPU, by parameter name."""
        return dict(whole_state.get_optimizer_state_dict(module, optimizers, options=_options()))

    def load(self, module: PackedLM, optimizers: Optimizers, state: Mapping[str, Any]) -> None:
        """Take in what ``model_state`` and ``optimizer_state`` gave, on however many processes that was."""
        if self.strategy == "fsdp2":
            whole_state.set_model_state_dict(module, dict(state["model"]), options=_options(strict=False))
        else:
            _put(module, state["model"])
        if "optimizers" in state:
            whole_state.set_optimizer_state_dict(module, optimizers, dict(state["optimizers"]), options=_options())


def _put(module: PackedLM, state: Mapping[str, torch.Tensor]) -> None:
    """Copy trained tensors into a module that holds them whole; CheckpointError when it trains others."""
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    lacking = sorted(set(trained) - set(state))
    if lacking:
        raise CheckpointError(f"the checkpoint has no {some(lacking)}; it is of another model")
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(state[name])


def _options(*, strict: bool = True) -> whole_state.StateDictOptions:
    return whole_state.StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True, strict=strict)
