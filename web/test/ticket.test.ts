import assert from "node:assert/strict";
import { test } from "node:test";

import { wholeTicket } from "../src/ticket.js";

// The library asks which browser it runs in while it is loaded; Node.js before 21 does not say.
const globals: { navigator?: unknown; window?: unknown } = globalThis;
globals.navigator ??= { appName: "Netscape", appVersion: "5" };
globals.window ??= globalThis;
const { rsa_encrypt } = await import("spice/ticket.js");

/** A key whose operation gives the number that is written here. */
function keyThatGives(hex: string) {
  return { n: { bitLength: () => 1024 }, doPublic: () => ({ toString: () => hex }) };
}

test("zeros at the front of a ticket, which the library drops, are there on the wire", () => {
  const dropped = rsa_encrypt(keyThatGives("ab".repeat(126)), "password\0");

  const whole = wholeTicket(dropped);

  assert.equal(dropped.length, 126);
  assert.deepEqual(whole, [0, 0, ...new Array(126).fill(0xab)]);
});

test("a ticket of full length stays as it is", () => {
  const ticket = new Array(128).fill(7);
  assert.deepEqual(wholeTicket(ticket), ticket);
});
