/**
 * A layer of deck.gl for many cells: one vertex each, no object, buffers written in place. It can stand between two layouts (`blend`), and draw
 * only the first `shown` of its cells, which are in a shuffled order: that is how dragging 200,000 stays smooth without a graphics card.
 */

import { Layer, type DefaultProps, type LayerProps, type UpdateParameters } from "@deck.gl/core";
import { Model } from "@luma.gl/engine";
import type { Buffer, RenderPass } from "@luma.gl/core";
import { cellsUniforms, fragment, vertex } from "./points_shaders";

export interface PointsProps extends LayerProps {
  /** x, y of each point, before and after. */
  from: Float32Array;
  to: Float32Array;
  /** r, g, b and shape * 16 + state (0 dim, 1 plain, 2 chosen) of each point. */
  look: Uint8Array;
  /** Counts changes of `look`, which is written in place. */
  lookVersion: number;
  blend: number;
  size: number;
  dim: number;
  shown: number;
  outline: [number, number, number, number];
}

interface PointsState {
  model?: Model;
  buffers?: { from: Buffer; to: Buffer; look: Buffer };
  length: number;
  [key: string]: unknown;
}

const defaults: DefaultProps<PointsProps> = {
  blend: 1,
  size: 4,
  dim: 0.15,
  shown: 0,
  lookVersion: 0,
};

export class PointsLayer extends Layer<PointsProps> {
  static override layerName = "PointsLayer";
  static override defaultProps = defaults as DefaultProps;
  declare state: PointsState;

  initializeState(): void {
    this.setState({ length: -1 });
  }

  override getAttributeManager(): null {
    return null; // the buffers are our own
  }

  override updateState({ props, oldProps }: UpdateParameters<this>): void {
    const n = props.to.length / 2;
    if (!this.state.buffers || this.state.length !== n) this.make(n);
    const { from, to, look } = this.state.buffers!;
    if (props.from !== oldProps.from) from.write(props.from);
    if (props.to !== oldProps.to) to.write(props.to);
    if (props.look !== oldProps.look || props.lookVersion !== oldProps.lookVersion) look.write(props.look);
    this.setNeedsRedraw();
  }

  private make(n: number): void {
    this.release();
    const { device } = this.context;
    const { from, to, look } = this.props;
    const buffers = {
      from: device.createBuffer({ data: from }),
      to: device.createBuffer({ data: to }),
      look: device.createBuffer({ data: look }),
    };
    const model = new Model(device, {
      ...(super.getShaders({ vs: vertex, fs: fragment, modules: [cellsUniforms] }) as object),
      id: this.props.id,
      topology: "point-list",
      vertexCount: n,
      bufferLayout: [
        { name: "from", format: "float32x2" },
        { name: "to", format: "float32x2" },
        { name: "look", format: "unorm8x4" },
      ],
      attributes: buffers,
    });
    this.setState({ model, buffers, length: n });
  }

  private release(): void {
    this.state.model?.destroy();
    for (const buffer of Object.values(this.state.buffers ?? {})) buffer.destroy();
  }

  override draw({ renderPass }: { renderPass: RenderPass }): void {
    const { model } = this.state;
    if (!model) return;
    const { viewport } = this.context;
    const [x0, y0] = viewport.project([0, 0]);
    const [x1, y1] = viewport.project([1, 1]);
    const { blend, size, dim, outline, opacity } = this.props;
    const sx = (2 * (x1 - x0)) / viewport.width;
    const sy = (-2 * (y1 - y0)) / viewport.height;
    const ratio = Number(this.context.deck?.props.useDevicePixels ?? 1);
    model.shaderInputs.setProps({
      cells: {
        view: [sx, sy, (2 * x0) / viewport.width - 1, 1 - (2 * y0) / viewport.height],
        blend,
        size: size * ratio,
        opacity,
        dim,
        outline,
      },
    });
    model.setVertexCount(Math.min(this.props.shown, this.state.length));
    model.draw(renderPass);
  }

  override finalizeState(context: Layer["context"]): void {
    this.release();
    super.finalizeState(context);
  }
}
