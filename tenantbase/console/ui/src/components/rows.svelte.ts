// Which rows of a long value are in the document: those in view, and some around them.

export const ROW_PIXELS = 20;
const ROWS_AROUND = 20;
/** Up to here every line is in the document, so that the browser can search and wrap it. */
const MAX_LINES = 1200;

export class Rows {
  #top = $state(0);
  #height = $state(800);

  constructor(
    private readonly count: () => number,
    private readonly most = MAX_LINES,
  ) {}

  /** Whether some are left out. */
  get windowed(): boolean {
    return this.count() > this.most;
  }

  /** The first row in the document. */
  get first(): number {
    return this.windowed ? Math.max(0, Math.floor(this.#top / ROW_PIXELS) - ROWS_AROUND) : 0;
  }

  /** The one after the last. */
  get end(): number {
    const below = Math.ceil((this.#top + this.#height) / ROW_PIXELS) + ROWS_AROUND;
    return this.windowed ? Math.min(this.count(), below) : this.count();
  }

  /** For what holds the rows: as high as all of them. */
  get height(): string | undefined {
    return this.windowed ? `${this.count() * ROW_PIXELS}px` : undefined;
  }

  /** In place of the rows above. */
  get padding(): string | undefined {
    return this.windowed ? `${this.first * ROW_PIXELS}px` : undefined;
  }

  readonly onscroll = (event: Event): void => {
    const scrolled = event.currentTarget as HTMLElement;
    this.#top = scrolled.scrollTop;
    this.#height = scrolled.clientHeight;
  };
}
