"""Asks a gateway through kserve's own client, in kserve's own environment; prints what came back as JSON.

It runs as a script with that environment's interpreter, which has nothing of ours:

    python kserve_asked.py URL TOKEN
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any


async def ask(url: str, token: str) -> dict[str, Any]:
    import httpx
    import numpy as np
    from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
    from kserve.protocol.infer_type import RequestedOutput

    key = {"authorization": f"Bearer {token}"}
    values: dict[str, tuple[str, Any]] = {
        "area": ("FP64", [50.0, 70.5]),
        "rooms": ("INT64", [2, 3]),
        "city": ("BYTES", ["Oslo", "Rome"]),
        "furnished": ("BOOL", [True, False]),
    }
    kinds = {"FP64": np.float64, "INT64": np.int64, "BYTES": np.object_, "BOOL": np.bool_}

    def inputs(binary: bool) -> list[Any]:
        made = []
        for name, (datatype, data) in values.items():
            made.append(InferInput(name, [2], datatype))
            made[-1].set_data_from_numpy(np.array(data, dtype=kinds[datatype]), binary_data=binary)
        return made

    async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=30)) as client:
        found: dict[str, Any] = {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "model": await client.is_model_ready(url, "flat", headers=key),
            "nobody": await client.is_model_ready(url, "nobody", headers=key),
        }
        for sent in (False, True):
            for returned in (False, True):
                wanted = [RequestedOutput("predict", parameters={"binary_data": returned})]
                request = InferRequest("flat", inputs(sent), request_id="r1", request_outputs=wanted)
                answer = await client.infer(url, request, "flat", headers=dict(key))
                (output,) = answer.outputs
                found[f"infer {sent:d}{returned:d}"] = [answer.id, np.array(output.data).reshape(-1).tolist()]
        try:
            await client.infer(url, {"inputs": []}, "flat", headers=dict(key))
        except httpx.HTTPStatusError as error:
            found["error"] = [error.response.status_code, str(error)]
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(ask(sys.argv[1], sys.argv[2]))))
