"""Runs llama.cpp's own server, as the package `xllamacpp` carries it, until SIGTERM or SIGINT.

`python -m benchmarks.peer_llamacpp model.gguf --port 9000`. Its settings are llama.cpp's defaults but for
what makes it do the same work as Modelyard: threads, sequences, one KV pool, no prompt cache on the side.
"""

import argparse
import signal
from pathlib import Path

import xllamacpp


def serve(model: Path, *, port: int, lanes: int, kv_tokens: int, threads: int, prompt_cache_mib: int) -> None:
    """Serve on 127.0.0.1 and block. `kv_tokens` is the pool that all `lanes` sequences share."""
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = lanes
    params.kv_unified = True
    params.n_ctx = kv_tokens
    params.fit_params = False  # it would shrink n_ctx by a guess of its own
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.cache_ram_mib = prompt_cache_mib
    params.n_gpu_layers = 0
    params.ui = False
    server = xllamacpp.Server(params)
    stopping = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stopping)
    print(f"ready {server.listening_address}", flush=True)
    signal.sigwait(stopping)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--lanes", type=int, default=16)
    parser.add_argument("--kv-tokens", type=int, default=16_384)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt-cache-mib", type=int, default=0, help="llama.cpp's own default is 8192")
    options = parser.parse_args()
    serve(
        options.model,
        port=options.port,
        lanes=options.lanes,
        kv_tokens=options.kv_tokens,
        threads=options.threads,
        prompt_cache_mib=options.prompt_cache_mib,
    )


if __name__ == "__main__":
    main()
