"""Turns a GGUF file into the safetensors folder that vLLM loads; runs in the engine's own environment.

Usage: python convert.py FILE.gguf FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(source: Path, folder: Path) -> None:
    """Write weights, configuration and tokenizer into `folder`."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where, name = str(source.parent), source.name
    model = AutoModelForCausalLM.from_pretrained(
        where,
        gguf_file=name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True, gguf_file=name),
    )
    folder.mkdir(parents=True, exist_ok=True)
    # The output layer shares its weights with the embedding; stored twice, vLLM would refuse them.
    weights = {
        key: value.contiguous() for key, value in model.state_dict().items() if key != "lm_head.weight"
    }
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    configuration = {
        key: value for key, value in model.config.to_dict().items() if key != "quantization_config"
    }
    configuration["architectures"] = ["LlamaForCausalLM"]
    (folder / "config.json").write_text(json.dumps(configuration, indent=2, default=str), encoding="utf-8")
    AutoTokenizer.from_pretrained(where, gguf_file=name).save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
