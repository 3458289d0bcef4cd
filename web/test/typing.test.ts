import assert from "node:assert/strict";
import { test } from "node:test";

import { strokesOf, type } from "../src/typing.js";

test("shift is pressed for what needs it on a US keyboard", () => {
  const shifted = strokesOf("aA1!-_=+[{/?").map(({ shift }) => shift);
  assert.deepEqual(shifted, [false, true, false, true, false, true, false, true, false, true, false, true]);
});

test("line ends of every kind are one Return", () => {
  assert.deepEqual(strokesOf("\r\n\n\r").map(({ keysym }) => keysym), [0xff0d, 0xff0d, 0xff0d]);
});

test("characters beyond Latin have their keysyms, control characters none", () => {
  assert.deepEqual(strokesOf("é€я\u0007😀").map(({ keysym }) => keysym), [0xe9, 0x20ac, 0x6d1, 0x101f600]);
});

test("typing presses and releases in order and stops when told", async () => {
  const sent: [number, boolean | undefined][] = [];
  const keyboard = { sendKey: (keysym: number, _: string | null, down?: boolean) => void sent.push([keysym, down]) };
  const stop = new AbortController();

  const done = await type(keyboard, strokesOf("Ab"), stop.signal, (count) => count === 1 && stop.abort());

  assert.equal(done, 1);
  assert.deepEqual(sent, [[0xffe1, true], [0x41, true], [0x41, false], [0xffe1, false]]);
});
