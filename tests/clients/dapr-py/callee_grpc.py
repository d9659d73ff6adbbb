"""An application that the runtime invokes over gRPC."""

import os
import sys

from dapr.ext.grpc import App, InvokeMethodRequest, InvokeMethodResponse

app = App()


@app.method("say")
def say(request: InvokeMethodRequest) -> InvokeMethodResponse:
    return InvokeMethodResponse(b"heard " + request.data, "text/plain; charset=UTF-8")


app._server.add_insecure_port(f"127.0.0.1:{os.environ['APP_PORT']}")
app._server.start()
print("ready", flush=True)
sys.stdin.read()
app.stop()
