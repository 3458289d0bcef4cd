// The token, remembered for this tab and this page only, so that a reload works although the
// address bar no longer holds it. A browser that forbids storage just forgets.

const key = (): string => `vncgate ${location.pathname}`;

export function remember(token: string): void {
  attempt(() => sessionStorage.setItem(key(), token));
}

export function recall(): string | undefined {
  return attempt(() => sessionStorage.getItem(key())) ?? undefined;
}

export function forget(): void {
  attempt(() => sessionStorage.removeItem(key()));
}

function attempt<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch {
    return undefined;
  }
}
