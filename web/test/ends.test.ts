import assert from "node:assert/strict";
import { test } from "node:test";

import { endOf, isRefusal } from "../src/ends.js";

test("the server's sentence begins and ends like one, and its id stands apart", () => {
  const end = endOf(4005, "the console's host does not answer [c0ffee1234]", true);
  assert.equal(end.sentence, "The console's host does not answer.");
  assert.equal(end.id, "c0ffee1234");
});

test("a sentence without an id is a sentence all the same", () => {
  for (const [said, shown] of [
    ["gone fishing", "Gone fishing."],
    ["Done.", "Done."],
    ["what now?", "What now?"],
    ["über [alles]", "Über [alles]."],
  ] as const) {
    const end = endOf(4010, said, true);
    assert.equal(end.sentence, shown);
    assert.equal(end.id, undefined);
  }
});

test("an id alone leaves the page's own sentence", () => {
  assert.equal(endOf(4005, " [c0ffee1234]", true).sentence, endOf(4005, "", true).sentence);
});

test("every code of the server has a sentence and a hint of its own", () => {
  const codes = [1000, 1001, 1002, 1003, 1006, 1009, ...Array.from({ length: 11 }, (_, index) => 4001 + index)];
  const sentences = codes.map((code) => endOf(code, "", true).sentence);
  assert.equal(new Set(sentences).size, codes.length);
  assert.ok(codes.every((code) => endOf(code, "", true).hint));
});

test("a connection that never opened is told from one that was lost", () => {
  assert.notEqual(endOf(1006, "", false).sentence, endOf(1006, "", true).sentence);
});

test("only a dead token is forgotten, and only a lost way is tried again unasked", () => {
  const codes = [1000, 1001, 1006, ...Array.from({ length: 11 }, (_, index) => 4001 + index)];
  assert.deepEqual(codes.filter((code) => endOf(code, "", true).tokenDead), [4001, 4002]);
  assert.deepEqual(codes.filter((code) => endOf(code, "", true).byItself), [1001, 1006]);
});

test("a code of ours refuses before the console was there and ends it after", () => {
  assert.equal(isRefusal(4007, false), true);
  assert.equal(isRefusal(4007, true), false);
  assert.equal(isRefusal(1006, false), false);
});
