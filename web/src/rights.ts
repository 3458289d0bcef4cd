// What the viewer of this page may do, as the gateway has it. The page only shows it: the gateway
// drops what is not allowed, whatever a page does.

/** Whether keys and pointer reach the console. Yes, where the gateway does not say. */
export async function mayType(page: string, path: string, token: string | undefined): Promise<boolean> {
  if (token === undefined) {
    return true;
  }
  const address = new URL(path, page);
  try {
    const answer = await fetch(address, {
      headers: { "vncgate-token": token },
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
    return !answer.ok || allowsInput(await answer.json());
  } catch {
    return true;
  }
}

/** Whether rights, as the gateway writes them, let somebody type. */
export function allowsInput(told: unknown): boolean {
  if (typeof told !== "object" || told === null || !("rights" in told) || typeof told.rights !== "string") {
    return true;
  }
  const rights = told.rights.split(",");
  return rights.includes("control") || rights.includes("input");
}
