// One request at a time for one panel: asking for something else gives up what was under way.

export class Loader<T> {
  private key = "";
  private abort: AbortController | null = null;

  constructor(
    private readonly done: (answer: T) => void,
    private readonly failed: (error: Error) => void,
    private readonly busy: (under: boolean) => void = () => {},
  ) {}

  /** Loads unless what `key` names is loaded or loading already. */
  load(key: string, ask: (signal: AbortSignal) => Promise<T>): void {
    if (key === this.key) return;
    this.abort?.abort();
    const abort = new AbortController();
    this.abort = abort;
    this.key = key;
    this.busy(true);
    ask(abort.signal)
      .then((answer) => {
        if (!abort.signal.aborted) this.done(answer);
      })
      .catch((error: unknown) => {
        if (abort.signal.aborted) return;
        this.key = "";
        this.failed(error instanceof Error ? error : new Error(String(error)));
      })
      .finally(() => {
        if (this.abort === abort) this.busy(false);
      });
  }

  /** Forgets what is loaded, so that the next `load` asks again. */
  forget(): void {
    this.key = "";
  }
}
