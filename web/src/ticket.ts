// The encrypted password of a SPICE channel, as the wire wants it.

/** The bytes of a ticket: SPICE's keys have 1024 bits. */
const LENGTH = 128;

/**
 * `digits`, the bytes of the number that a ticket is, in their full length. The library leaves out
 * zeros at its front, one ticket in 256 has some, and then everything after them would be shifted.
 */
export function wholeTicket(digits: readonly number[]): number[] {
  const missing = Math.max(0, LENGTH - digits.length);
  return [...new Array<number>(missing).fill(0), ...digits];
}
