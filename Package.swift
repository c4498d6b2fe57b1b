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

/// What a shipped library is linked with: its own name, the reviewed list of its functions.
func shipped(_ name: String, _ exports: String) -> LinkerSetting {
  .unsafeFlags(
    [
      "-enable-experimental-feature", "Embedded", "-wmo", "-use-ld=lld",
      "-Xlinker", "-soname", "-Xlinker", "\(name).so.0",
      "-Xlinker", "--version-script=\(Context.packageDirectory)/abi/\(exports)",
      "-Xlinker", "--gc-sections", "-Xlinker", "--icf=all", "-Xlinker", "-z", "-Xlinker", "relro",
      "-Xlinker", "-z", "-Xlinker", "now",
    ], .when(traits: ["Embedded"]))
}

let package = Package(
  name: "autoglm_reliability",
  products: [
    .library(name: "autoglm_reliability", type: .dynamic, targets: ["ReliabilityABI"]),
    // The stores are libraries of their own, which see include/ and nothing else of this one.
    .library(name: "autoglm_reliability_sqlite", type: .dynamic, targets: ["StoreSQLite"]),
    .library(name: "autoglm_reliability_redis", type: .dynamic, targets: ["StoreRedis"]),
  ],
  traits: ["Embedded"],
  targets: [
    .systemLibrary(name: "CAutoGLMReliability", path: "include"),
    .systemLibrary(name: "Platform", path: "Sources/Platform"),
    .systemLibrary(name: "CSQLite", path: "Sources/CSQLite"),
    .systemLibrary(name: "CRedis", path: "Sources/CRedis"),
    .target(
      name: "ReliabilityCore", dependencies: ["Platform"], swiftSettings: sources),
    .target(
      name: "ReliabilityABI",
      dependencies: ["CAutoGLMReliability", "Platform", "ReliabilityCore"],
      swiftSettings: sources,
      linkerSettings: [
        .linkedLibrary("m"), shipped("libautoglm_reliability", "exports.map"),
      ]),
    .target(
      name: "StoreSQLite",
      dependencies: ["CAutoGLMReliability", "CSQLite", "Platform"],
      swiftSettings: sources,
      linkerSettings: [
        .linkedLibrary("sqlite3"), shipped("libautoglm_reliability_sqlite", "sqlite.map"),
      ]),
    .target(
      name: "StoreRedis",
      dependencies: ["CAutoGLMReliability", "CRedis", "Platform"],
      swiftSettings: sources,
      linkerSettings: [
        .linkedLibrary("hiredis"), .linkedLibrary("ssl"), .linkedLibrary("crypto"),
        .linkedLibrary("m"),
        shipped("libautoglm_reliability_redis", "redis.map"),
      ]),
    .testTarget(
      name: "ReliabilityCoreTests", dependencies: ["ReliabilityCore"]),
    .testTarget(
      name: "ReliabilityABITests",
      dependencies: ["CAutoGLMReliability", "ReliabilityABI", "ReliabilityCore"]),
  ]
)
