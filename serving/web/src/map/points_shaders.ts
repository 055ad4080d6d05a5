/** The shaders of points: one vertex a cell. Its look holds the colour (r, g, b) and, in the fourth byte, shape * 16 + state. */

const block = /* glsl */ `\
layout(std140) uniform cellsUniforms {
  vec4 view;
  float blend;
  float size;
  float opacity;
  float dim;
  vec4 outline;
} cells;
`;

export const cellsUniforms = {
  name: "cells",
  source: "",
  vs: block,
  fs: block,
  uniformTypes: { view: "vec4<f32>", blend: "f32", size: "f32", opacity: "f32", dim: "f32", outline: "vec4<f32>" },
} as const;

export const vertex = /* glsl */ `\
#version 300 es
#define SHADER_NAME cells-vertex
in vec2 from;
in vec2 to;
in vec4 look;
out vec4 colour;
flat out vec2 kind;
void main(void) {
  float packed = floor(look.w * 255.0 + 0.5);
  float shape = floor(packed / 16.0);
  float state = packed - shape * 16.0;
  vec2 at = mix(from, to, cells.blend) * cells.view.xy + cells.view.zw;
  gl_Position = vec4(at, state > 1.5 ? -0.5 : (state < 0.5 ? 0.5 : 0.0), 1.0);
  float grown = state > 1.5 ? 1.35 : 1.0;
  gl_PointSize = cells.size * grown + 1.0;
  colour = vec4(look.rgb, state < 0.5 ? cells.dim : cells.opacity);
  kind = vec2(shape, gl_PointSize);
}
`;

export const fragment = /* glsl */ `\
#version 300 es
#define SHADER_NAME cells-fragment
precision highp float;
in vec4 colour;
flat in vec2 kind;
out vec4 fragColor;
void main(void) {
  vec2 p = (gl_PointCoord - 0.5) * 2.0;
  float d;
  if (kind.x < 0.5) d = length(p);
  else if (kind.x < 1.5) d = max(abs(p.x), abs(p.y)) * 1.18;
  else if (kind.x < 2.5) d = (abs(p.x) + abs(p.y)) * 0.95;
  else if (kind.x < 3.5) d = max(p.y * 1.15 + 0.1, 0.5 * abs(p.x) * 2.2 - p.y * 0.55);
  else d = min(max(abs(p.x), abs(p.y) * 3.0), max(abs(p.y), abs(p.x) * 3.0));
  float edge = 1.5 / kind.y;
  float inside = 1.0 - smoothstep(1.0 - edge, 1.0, d);
  if (inside <= 0.02) discard;
  vec3 rgb = colour.rgb;
  if (cells.outline.a > 0.0) rgb = mix(rgb, cells.outline.rgb, smoothstep(0.62 - edge, 0.62, d));
  fragColor = vec4(rgb, colour.a * inside);
}
`;
