"""What is told of a vLLM that does not start; the server itself is tested in `test_vllm.py`."""

from __future__ import annotations

from scmulan.serving.vllm import VllmProcess

REFUSAL = (
    "ValueError: Call to add_lora method failed: Worker failed with error 'While loading a/adapter, expected target modules in {'q_proj'} "
    "but received ['lm_head', 'lm_head']. Please verify that the loaded LoRA module is correct', please check the stack trace above"
)
"""As vLLM 0.32 ends its log where the base is a Qwen2 and the adapter reaches the output matrix."""


def test_an_adapter_that_vllm_refuses_at_its_start_is_told_with_what_to_do(tmp_path):
    log = tmp_path / "vllm.log"
    process = VllmProcess(tmp_path, "base", {}, context=128, dtype="float32", log_file=log)
    log.write_text(f"{REFUSAL}\n")
    assert "received ['lm_head'" in process._last_words()
    assert process._last_words().endswith("or fine-tune one of the layers alone (`adapter: {targets: [...]}`)")
    log.write_text("RuntimeError: no memory\n")
    assert process._last_words() == f"RuntimeError: no memory ({log})"
