import assert from "node:assert/strict";
import { test } from "node:test";

import { readable, readSettings, Refusal, socketAddress, withoutSecrets } from "../src/settings.js";

const PAGE = "https://gate.example:6080/vnc.html";

function socketOf(address: string): string {
  const { path, token } = readSettings(address);
  return socketAddress(address, path, token);
}

test("the form Nova writes opens the path it names", () => {
  assert.equal(socketOf(`${PAGE}?path=%3Ftoken%3DT`), "wss://gate.example:6080/vnc.html?token=T");
  assert.equal(socketOf(`${PAGE}?path=ws%3Ftoken%3DT`), "wss://gate.example:6080/ws?token=T");
  assert.equal(socketOf(`${PAGE}?a=1&path=a%2Fb%3Fx%3D1%26token%3DT`), "wss://gate.example:6080/a/b?x=1&token=T");
});

test("a plain token goes to the usual path beside the page", () => {
  assert.equal(socketOf(`${PAGE}?token=T`), "wss://gate.example:6080/websockify?token=T");
  assert.equal(socketOf("http://h/novnc/vnc_lite.html?token=T"), "ws://h/novnc/websockify?token=T");
});

test("a base address that has a query already survives Nova's second question mark", () => {
  const address = `${PAGE}?autoconnect=true?path=%3Ftoken%3DT&title=web(1)`;
  assert.equal(socketOf(address), "wss://gate.example:6080/vnc.html?token=T");
  assert.equal(readSettings(address).title, "web(1)");
  assert.equal(socketOf(`${PAGE}?path=websockify?token=T`), "wss://gate.example:6080/websockify?token=T");
});

test("the fragment beats the query", () => {
  const settings = readSettings(`${PAGE}?token=Q&view_only=0&quality=3#token=F&view_only=1`);
  assert.equal(settings.token, "F");
  assert.equal(settings.viewOnly, true);
  assert.equal(settings.quality, 3);
});

test("the last of several tokens counts, as for the server", () => {
  assert.equal(readSettings(`${PAGE}?token=A&token=B`).token, "B");
  assert.equal(readSettings(`${PAGE}?path=%3Ftoken%3DA%26token%3DB`).token, "B");
  assert.equal(readSettings(`${PAGE}?token=`).token, undefined);
});

test("no address leads to another server", () => {
  const foreign = [
    "path=wss%3A%2F%2Fevil.example%2Fx",
    "path=%2F%2Fevil.example%2Fx",
    "path=%5C%5Cevil.example%2Fx",
    "path=%09%2F%2Fevil.example",
    "path=https%3A%2F%2Fgate.example%3A6080%2Fx",
    "path=javascript%3Aalert(1)",
    "path=%2F%2Fgate.example%2Fx",
    "host=evil.example&token=T",
    "port=5900&token=T",
  ];
  for (const query of foreign) {
    assert.throws(() => readSettings(`${PAGE}?${query}`), Refusal, query);
    assert.throws(() => readSettings(`${PAGE}#${query}`), Refusal, query);
  }
});

test("the page's own host and port may be named", () => {
  assert.equal(readSettings(`${PAGE}?host=gate.example&port=6080&token=T`).token, "T");
  assert.equal(readSettings("https://gate.example/vnc.html?port=443&token=T").token, "T");
});

test("the address loses its secrets and keeps the rest", () => {
  assert.equal(withoutSecrets(`${PAGE}?token=T&title=a+b`), `${PAGE}?title=a+b`);
  assert.equal(withoutSecrets(`${PAGE}?path=%3Ftoken%3DT`), PAGE);
  assert.equal(withoutSecrets(`${PAGE}?path=ws%3Ftoken%3DT&resize=off#token=F`), `${PAGE}?path=ws&resize=off`);
  assert.equal(withoutSecrets(`${PAGE}?a=b?path=%3Ftoken%3DT`), `${PAGE}?a=b`);
});

test("what the address loses, it can be opened again with", () => {
  const address = `${PAGE}?path=deep%2Fws%3Fx%3D1%26token%3DT`;
  const again = readSettings(withoutSecrets(address));
  assert.equal(socketAddress(address, again.path, "T"), socketOf(address));
});

test("odd values fall back to the usual ones", () => {
  const settings = readSettings(`${PAGE}?resize=big&quality=11&compression=x&reconnect_delay=-1&logging=all`);
  assert.deepEqual(
    [settings.resize, settings.quality, settings.compression, settings.reconnectDelayMs, settings.logging],
    ["scale", 6, 2, 5000, "warn"],
  );
});

test("a title cannot turn or hide its neighbours", () => {
  assert.equal(readable(" a\u202eb\u0000c\n "), "a b c");
  assert.equal(readable("\u200b"), undefined);
  assert.equal(readable("x".repeat(500))?.length, 120);
});
