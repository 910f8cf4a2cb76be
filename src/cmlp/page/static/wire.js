// The wire: safetensors frames and JSON events from the engine; messages and credit to it.

const KINDS = { F64: Float64Array, F32: Float32Array, U8: Uint8Array }; // of those that frames have

/** Read a frame: its arrays (each with a shape) and its metadata, whose values are JSON. */
export function readFrame(buffer) {
  const n = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, n)));
  const about = {};
  for (const [key, text] of Object.entries(header.__metadata__ || {})) {
    try { about[key] = JSON.parse(text); } catch { about[key] = text; }
  }
  const arrays = {};
  for (const [name, item] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const [begin, end] = item.data_offsets;
    const Kind = KINDS[item.dtype];
    const at = 8 + n + begin;
    const array = at % Kind.BYTES_PER_ELEMENT
      ? new Kind(buffer.slice(at, 8 + n + end))
      : new Kind(buffer, at, (end - begin) / Kind.BYTES_PER_ELEMENT);
    array.shape = item.shape;
    arrays[name] = array;
  }
  return { arrays, about };
}

/** A WebSocket to the engine on this machine. */
export function socketTransport(token) {
  const socket = new WebSocket(`ws://${location.host}/socket`);
  socket.binaryType = "arraybuffer";
  return {
    open(setup, receive, closed, begun) {
      socket.onopen = () => {
        socket.send(JSON.stringify({ type: "hello", token, setup }));
        begun();
      };
      socket.onmessage = (message) => receive(message.data);
      socket.onclose = (event) => closed(event.code);
    },
    send: (data) => socket.readyState === 1 && socket.send(data),
  };
}

/** A notebook's kernel, by way of anywidget. */
export function widgetTransport(model) {
  return {
    open(setup, receive, closed, begun) {
      model.on("msg:custom", (message, buffers) => {
        if (message.binary) receive(bytesOf(buffers[0]));
        else receive(message.text);
      });
      model.send({ text: JSON.stringify({ type: "hello", setup }) });
      begun();
    },
    send(data) {
      if (typeof data === "string") model.send({ text: data });
      else model.send({ binary: true }, undefined, [data]);
    },
  };
}

function bytesOf(view) {
  const bytes = new Uint8Array(view.byteLength);
  bytes.set(new Uint8Array(view.buffer || view, view.byteOffset || 0, view.byteLength));
  return bytes.buffer;
}
