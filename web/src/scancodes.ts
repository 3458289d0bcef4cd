// Keys as SPICE sends them: the scan codes of a PC keyboard (set 1), four bytes to a message.
//
// Physical keys stay physical: which letter is on them is the guest's keyboard layout. Where a
// text is typed, a US layout is assumed, as everywhere on these pages.

import scancodes from "novnc/input/xtscancodes.js";

/** Both characters of the keys of a US keyboard that are no letters. */
const PAIRS: Readonly<Record<string, string>> = {
  "`~": "Backquote",
  "-_": "Minus",
  "=+": "Equal",
  "[{": "BracketLeft",
  "]}": "BracketRight",
  "\\|": "Backslash",
  ";:": "Semicolon",
  "'\"": "Quote",
  ",<": "Comma",
  ".>": "Period",
  "/?": "Slash",
  " ": "Space",
  ...Object.fromEntries([..."!@#$%^&*()"].map((sign, index) => {
    const digit = (index + 1) % 10;
    return [`${digit}${sign}`, `Digit${digit}`];
  })),
};

const CHARACTERS = new Map(
  Object.entries(PAIRS).flatMap(([characters, code]) => [...characters].map((each) => [each, code])),
);

const NAMED = new Map([
  [0xff08, "Backspace"],
  [0xff09, "Tab"],
  [0xff0d, "Enter"],
  [0xff1b, "Escape"],
]);

/** The physical key that types a keysym on a US keyboard. */
export function codeOf(keysym: number): string | undefined {
  if (keysym > 0x7e) {
    return NAMED.get(keysym);
  }
  const character = String.fromCodePoint(keysym);
  return /[a-z]/i.test(character) ? `Key${character.toUpperCase()}` : CHARACTERS.get(character);
}

/** What goes over the wire for a physical key, least significant byte first; 0xe0 is a prefix. */
export function scanOf(code: string, down: boolean): number | undefined {
  const known = scancodes[code];
  if (known === undefined) {
    return undefined;
  }
  const key = (known & 0x7f) | (down ? 0 : 0x80);
  return known > 0xff ? 0xe0 | (key << 8) : key;
}
