// The log-in: asks for a token when the server wants to know who looks, and trades it for a cookie that no script sees.

import * as api from "./api";
import { h } from "./dom";

export class Login {
  readonly element: HTMLDialogElement;
  /** Ends the session; hidden while there is none. */
  readonly out: HTMLButtonElement;
  private readonly token: HTMLInputElement;
  private readonly wrong: HTMLElement;

  constructor(private readonly done: () => void) {
    this.token = h("input", {
      type: "password",
      name: "token",
      required: true,
      autocomplete: "off",
      spellcheck: "false",
      placeholder: "evf_…",
      "aria-label": "Token",
    });
    this.wrong = h("p", { class: "login-wrong", role: "alert" });
    this.element = h(
      "dialog",
      { class: "help login", "aria-label": "Log in" },
      h("h2", {}, "Log in"),
      h("p", {}, "This server shows profiles to those who have a token for it."),
      h(
        "form",
        {
          onsubmit: (event: Event) => {
            event.preventDefault();
            void this.submit();
          },
        },
        this.token,
        h("button", { type: "submit" }, "Log in"),
      ),
      this.wrong,
      h(
        "p",
        { class: "faint" },
        "Whoever runs the server makes one with ",
        h("code", {}, "everflame token create --role reader"),
      ),
    );
    // There is nothing behind it to go back to.
    this.element.addEventListener("cancel", (event) => event.preventDefault());
    this.out = h(
      "button",
      { type: "button", class: "quiet", hidden: true, onclick: () => void this.leave() },
      "Log out",
    );
  }

  /** Asks, unless it does so already. */
  ask(): void {
    if (this.element.open) return;
    this.out.hidden = true;
    this.wrong.textContent = "";
    this.element.showModal();
    this.token.focus();
  }

  /** Says whether there is a session to end. */
  known(session: api.Session): void {
    this.out.hidden = !session.session;
    this.out.title = `Logged in with the token ${session.name || session.id} (${session.role})`;
  }

  private async submit(): Promise<void> {
    try {
      const session = await api.logIn(this.token.value.trim());
      this.token.value = "";
      this.element.close();
      this.known({ ...session, session: true });
      this.done();
    } catch (error) {
      this.wrong.textContent = error instanceof Error ? error.message : String(error);
      this.token.select();
    }
  }

  private async leave(): Promise<void> {
    await api.logOut().catch(() => {}); // a server that is away has no session either
    location.reload();
  }
}
