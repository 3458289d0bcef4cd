// Styles for code that writes them as text: `<style>` elements and `style` attributes, which the
// pages' policy forbids, so that no text from outside can style them. What is written here by
// scripts of ours goes through the CSSOM instead, which the policy leaves alone.

/** From now on, for all of the page. */
export function writeThroughCssom(): void {
  const create = document.createElement.bind(document);
  const createElement = (tag: string, options?: ElementCreationOptions): HTMLElement =>
    tag === "style" ? sheet(create("template")) : create(tag, options);
  document.createElement = createElement as typeof document.createElement;

  const set = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function (this: Element, name: string, value: string): void {
    if (name === "style" && this instanceof HTMLElement) {
      this.style.cssText = value;
    } else {
      set.call(this, name, value);
    }
  };
}

/** An element that does nothing by itself, with the two ways in which a style element is used. */
function sheet(standIn: HTMLElement): HTMLElement {
  const rules = new CSSStyleSheet();
  document.adoptedStyleSheets.push(rules);
  Object.defineProperty(standIn, "textContent", {
    get: () => "",
    set: (text: string) => void rules.replaceSync(text),
  });
  standIn.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((each) => each !== rules);
    HTMLElement.prototype.remove.call(standIn);
  };
  return standIn;
}
