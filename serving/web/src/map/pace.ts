/** How many points are drawn while the map moves: as many as the last frames could bear, and all of them when it is still. */

export const FEWEST = 8_000;
const SLOW = 26;
const FAST = 19;

export class Pace {
  private most = 60_000;
  private last = 0;

  constructor(private readonly now: () => number = () => performance.now()) {}

  /** Whether even the fewest points are slow, as where no graphics card draws: then pixels cost more than points. */
  get isStrained(): boolean {
    return this.most <= FEWEST;
  }

  begin(): void {
    this.last = 0;
  }

  /** To be called for each frame while the map moves; how many of `n` points to draw in it. */
  frame(n: number): number {
    const at = this.now();
    if (this.last) {
      const took = at - this.last;
      if (took > SLOW) this.most = Math.max(FEWEST, this.most * 0.7);
      else if (took < FAST) this.most = Math.min(1_000_000, this.most * 1.1);
    }
    this.last = at;
    return Math.min(n, Math.round(this.most));
  }
}
