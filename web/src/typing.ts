// Text as key strokes, for guests without a shared clipboard: a login prompt, a boot menu.
//
// Hypervisors map a keysym to a key and leave the modifiers to the viewer, so Shift is pressed
// for what needs it on a US keyboard, which is what guests without further ado have.

import keysyms from "novnc/input/keysymdef.js";

export interface Stroke {
  keysym: number;
  shift: boolean;
}

export interface Keyboard {
  sendKey(keysym: number, code: string | null, down?: boolean): void;
}

const RETURN = 0xff0d;
const TAB = 0xff09;
const SHIFT = 0xffe1;
const SHIFTED = /^[A-Z~!@#$%^&*()_+{}|:"<>?]$/;

/**
 * QEMU plays one key event each 10 ms (its `key-delay-ms`) and forgets what comes when 1024 wait;
 * a PS/2 keyboard behind it holds 16 bytes. So a little slower than that.
 */
const EVENT_MS = 12;

/** The strokes for a text; what no key stands for is left out. */
export function strokesOf(text: string): Stroke[] {
  return Array.from(text.replace(/\r\n?/g, "\n"), strokeOf).filter((stroke) => stroke !== undefined);
}

/** Types one stroke after the other until done or stopped. Tells how many it typed. */
export async function type(
  keyboard: Keyboard,
  strokes: Stroke[],
  stop: AbortSignal,
  progress: (done: number) => void,
): Promise<number> {
  let done = 0;
  for (const stroke of strokes) {
    if (stop.aborted) {
      break;
    }
    const events = press(keyboard, stroke);
    progress(++done);
    await new Promise((resume) => setTimeout(resume, events * EVENT_MS));
  }
  return done;
}

function strokeOf(character: string): Stroke | undefined {
  if (character === "\n") {
    return { keysym: RETURN, shift: false };
  }
  if (character === "\t") {
    return { keysym: TAB, shift: false };
  }
  if (/\p{Cc}/u.test(character)) {
    return undefined;
  }
  const keysym = keysyms.lookup(character.codePointAt(0) ?? 0);
  return { keysym, shift: SHIFTED.test(character) };
}

/** Tells how many events it took. */
function press(keyboard: Keyboard, { keysym, shift }: Stroke): number {
  if (shift) {
    keyboard.sendKey(SHIFT, "ShiftLeft", true);
  }
  keyboard.sendKey(keysym, null, true);
  keyboard.sendKey(keysym, null, false);
  if (shift) {
    keyboard.sendKey(SHIFT, "ShiftLeft", false);
  }
  return shift ? 4 : 2;
}
