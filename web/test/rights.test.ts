import assert from "node:assert/strict";
import { test } from "node:test";

import { allowsInput } from "../src/rights.js";

test("who may only look cannot type", () => {
  assert.equal(allowsInput({ rights: "view" }), false);
  assert.equal(allowsInput({ rights: "view,clipboard-out" }), false);
});

test("who has control or input can, and so can everybody of whom nothing is known", () => {
  for (const told of [{ rights: "control" }, { rights: "input,clipboard-in" }, {}, null, { rights: 7 }]) {
    assert.equal(allowsInput(told), true);
  }
});
