// swift-tools-version: 6.1
import PackageDescription

// `swift build -c release --traits Embedded` makes what ships: one library that needs libc and libm
// only. Without the trait the very same sources are built with the full runtime, for the tests and
// the sanitizers.

#if arch(x86_64)
  // The keyed limiter exchanges 16 bytes at once.
  let wideExchange = ["-Xcc", "-mcx16"]
#else
  let wideExchange: [String] = []
#endif

let sources: [SwiftSetting] = [
  .enableExperimentalFeature("Embedded", .when(traits: ["Embedded"])),
  .unsafeFlags(
    [
      "-wmo", "-Xfrontend", "-function-sections", "-Xcc", "-fPIC", "-Xcc",
      "-fstack-protector-strong",
    ], .when(traits: ["Embedded"])),
  .unsafeFlags(["-warnings-as-errors"] + wideExchange),
]

let package = Package(
  name: "autoglm_reliability",
  products: [
    .library(name: "autoglm_reliability", type: .dynamic, targets: ["ReliabilityABI"])
  ],
  traits: ["Embedded"],
  targets: [
    .systemLibrary(name: "CAutoGLMReliability", path: "include"),
    .systemLibrary(name: "Platform", path: "Sources/Platform"),
    .target(
      name: "ReliabilityCore", dependencies: ["Platform"], swiftSettings: sources),
    .target(
      name: "ReliabilityABI",
      dependencies: ["CAutoGLMReliability", "Platform", "ReliabilityCore"],
      swiftSettings: sources,
      linkerSettings: [
        .linkedLibrary("m"),
        .unsafeFlags(
          [
            "-enable-experimental-feature", "Embedded", "-wmo", "-use-ld=lld",
            "-Xlinker", "-soname", "-Xlinker", "libautoglm_reliability.so.0",
            "-Xlinker", "--version-script=\(Context.packageDirectory)/abi/exports.map",
            "-Xlinker", "--gc-sections", "-Xlinker", "-z", "-Xlinker", "relro",
            "-Xlinker", "-z", "-Xlinker", "now",
          ], .when(traits: ["Embedded"])),
      ]),
    .testTarget(
      name: "ReliabilityCoreTests", dependencies: ["ReliabilityCore"]),
    .testTarget(
      name: "ReliabilityABITests",
      dependencies: ["CAutoGLMReliability", "ReliabilityABI", "ReliabilityCore"]),
  ]
)
