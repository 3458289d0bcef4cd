import assert from "node:assert/strict";
import { test } from "node:test";

import { codeOf, scanOf } from "../src/scancodes.js";

test("a key goes down by its scan code and up with the highest bit", () => {
  assert.equal(scanOf("KeyA", true), 0x1e);
  assert.equal(scanOf("KeyA", false), 0x9e);
});

test("an extended key has its prefix first on the wire, which is the lowest byte", () => {
  assert.equal(scanOf("ArrowUp", true), 0x48e0);
  assert.equal(scanOf("ArrowUp", false), 0xc8e0);
});

test("a key that no PC keyboard has is no key", () => {
  assert.equal(scanOf("Unheard", true), undefined);
});

test("every character of a US keyboard has its key, and no other character has one", () => {
  const printable = Array.from({ length: 95 }, (_, index) => 0x20 + index);
  for (const keysym of printable) {
    const code = codeOf(keysym);
    assert.ok(code && scanOf(code, true), String.fromCodePoint(keysym));
  }
  assert.equal(codeOf("ü".codePointAt(0) ?? 0), undefined);
  assert.equal(codeOf(0x1f), undefined);
  assert.deepEqual(["z", "Z", "0", ")", "?"].map((each) => codeOf(each.codePointAt(0) ?? 0)), [
    "KeyZ",
    "KeyZ",
    "Digit0",
    "Digit0",
    "Slash",
  ]);
});
