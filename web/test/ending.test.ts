import assert from "node:assert/strict";
import { test } from "node:test";

import { type Ended, Ending } from "../src/ending.js";

/** What an ending tells, and a socket to close. */
function watched(): { told: Ended[]; ending: Ending; close: (code: number, reason?: string) => void } {
  const told: Ended[] = [];
  const ending = new Ending((end) => told.push(end));
  const socket = new EventTarget();
  ending.watch(socket as WebSocket);
  socket.dispatchEvent(new Event("open"));
  const close = (code: number, reason = ""): void => {
    socket.dispatchEvent(Object.assign(new Event("close"), { code, reason }));
  };
  return { told, ending, close };
}

test("a console ends once, by what closes first", () => {
  const { told, ending, close } = watched();
  close(4005, "the host is gone [c0ffee1234]");
  close(1000);
  ending.leave();
  assert.deepEqual(told.map(({ code }) => code), [4005]);
  assert.equal(told[0]?.refused, true);
});

test("what went wrong above the socket beats a plain close, and the gateway's word beats that", () => {
  for (const [code, sentence] of [
    [1000, "Oops."],
    [4011, "The gateway had an internal error."],
  ] as const) {
    const { told, ending, close } = watched();
    ending.blame({ sentence: "Oops.", hint: "" });
    close(code);
    assert.equal(told[0]?.sentence, sentence);
  }
});

test("an abandoned socket ends nothing", () => {
  const told: Ended[] = [];
  const abandoned = new AbortController();
  const socket = new EventTarget();
  new Ending((end) => told.push(end)).watch(socket as WebSocket, abandoned.signal);
  abandoned.abort();
  socket.dispatchEvent(Object.assign(new Event("close"), { code: 1000, reason: "" }));
  assert.deepEqual(told, []);
});
