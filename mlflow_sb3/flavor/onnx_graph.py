"""Export a ``PolicyModule`` to ONNX, and explain a failed export."""

from __future__ import annotations

import io
import linecache
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from traceback import walk_tb

import torch
from mlflow.exceptions import MlflowException
from torch import nn

from mlflow_sb3.flavor.onnx_module import PolicyModule
from mlflow_sb3.flavor.policy_outputs import Tensors
from mlflow_sb3.flavor.torch_internals import EXPORT_LOGGERS, unvalidated_distributions
from mlflow_sb3.inference.policy_inputs import STATE_NAMES

_MAX_REASON_LENGTH = 200


def build_graph(module: PolicyModule) -> tuple[bytes, list[str]]:
    """Export a policy to ONNX.

    Args:
        module: Policy in evaluation mode.

    Returns:
        The ONNX model, and the names of its outputs.

    Raises:
        MlflowException: PyTorch cannot export a module of the policy. The message names the module,
            and the operator or the line of code.
    """
    example = module.make_example()
    with _no_messages(), unvalidated_distributions(), torch.no_grad():
        outputs = list(module.compute_outputs(*example.values()))
        try:
            program = torch.onnx.export(
                module,
                tuple(example.values()),
                dynamo=True,
                verbose=False,
                input_names=list(example),
                output_names=outputs,
                dynamic_shapes=(_dynamic_shapes(example),),
            )
        except torch.onnx.OnnxExporterError as error:
            raise MlflowException.invalid_parameter_value(
                f"The policy cannot be exported to ONNX: {_explain(error, module, example)}. "
                "Use other policy_kwargs, or log the model with inference=native."
            ) from error
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program, although dynamo is true.")
    buffer = io.BytesIO()
    # torch declares a path, but accepts a file too.
    program.save(buffer, external_data=False)  # type: ignore[arg-type]
    return buffer.getvalue(), outputs


def _dynamic_shapes(example: Tensors) -> tuple[dict[int, torch.export.Dim], ...]:
    """Return the batch axis of every input: 1 for LSTM states, 0 for other inputs."""
    batch = torch.export.Dim("batch")
    return tuple({1 if name in STATE_NAMES else 0: batch} for name in example)


def _explain(error: BaseException, module: PolicyModule, example: Tensors) -> str:
    """Return the part of the policy that cannot be exported, and the reason."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    operators = [
        operator
        for cause in causes
        for operator in re.findall(r"OpOverload\(op='([\w.]+)'", str(cause))
    ]
    if operators:
        user = _find_user(operators[-1], module, example)
        return f"{user} uses the operator {operators[-1]}, which has no ONNX function"
    return _explain_exception(causes[-1], module)


def _explain_exception(cause: BaseException, module: PolicyModule) -> str:
    """Return the innermost module in the traceback, the line of code, and the message."""
    reason = str(cause).partition("\n")[0].strip()[:_MAX_REASON_LENGTH]
    frames = [
        (frame, line)
        for frame, line in walk_tb(cause.__traceback__)
        if isinstance(frame.f_locals.get("self"), nn.Module)
    ]
    if not frames:
        return f"{type(module.policy).__name__}: {reason}"
    frame, line = frames[-1]
    code = linecache.getline(frame.f_code.co_filename, line).strip()
    return f"{type(frame.f_locals['self']).__name__}, at '{code}': {reason}"


def _find_user(operator: str, module: PolicyModule, example: Tensors) -> str:
    """Return the class name of the innermost module that uses an operator."""
    program = torch.export.export(module, tuple(example.values())).run_decompositions()
    name = operator.rpartition(".")[2]
    nodes = [node for node in program.graph.nodes if name in str(node.target)]
    stacks = [list(node.meta.get("nn_module_stack", {}).values()) for node in nodes]
    if not stacks or not stacks[0]:
        return type(module.policy).__name__
    return str(stacks[0][-1][1]).rpartition(".")[2]


@contextmanager
def _no_messages() -> Iterator[None]:
    """Suppress the warnings and messages of ``torch.onnx.export``.

    torch 2.13 prints many of them for every export. They are not needed, because the parity check
    detects wrong graphs.
    """
    loggers = [logging.getLogger(name) for name in EXPORT_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
