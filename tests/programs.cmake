# Programs beside the cmocka tests, and the ctest cases that run them.

# --- golden_check: our numbers beside PyTorch's ------------------------------------------------------------------------
file(GLOB golden_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/golden/*.c)
add_executable(golden_check ${golden_sources})
set_target_properties(golden_check PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_compile_definitions(golden_check PRIVATE DEMO="${CMAKE_SOURCE_DIR}/deploy/demo")
target_link_libraries(golden_check PRIVATE draft_engine draft_flags)

# Every fixture is a case of its own: golden.<folder or file>. Two threads: the machine may be shared.
set(golden ${CMAKE_CURRENT_SOURCE_DIR}/fixtures/golden)
file(GLOB fixtures CONFIGURE_DEPENDS RELATIVE ${golden} ${golden}/*/config.json ${golden}/*.safetensors
  ${golden}/*.json ${golden}/draft_plus/*.safetensors)
foreach(fixture IN LISTS fixtures)
  string(REGEX REPLACE "/config\\.json$" "" fixture ${fixture})
  string(REGEX REPLACE "[/.]" "-" name ${fixture})
  string(REGEX REPLACE "-(safetensors|json)$" "" name ${name})
  add_test(NAME golden.${name} COMMAND golden_check --threads 2 ${golden}/${fixture})
  set_tests_properties(golden.${name} PROPERTIES LABELS "engine;golden" TIMEOUT 600)
endforeach()

# Folders as Stable Diffusion 1.5's era wrote them; shapes that the golden models do not have.
foreach(folder era15 shapes)
  add_test(NAME golden.${folder} COMMAND golden_check --threads 2 ${CMAKE_CURRENT_SOURCE_DIR}/fixtures/${folder})
  set_tests_properties(golden.${folder} PROPERTIES LABELS "engine;golden" TIMEOUT 600)
endforeach()

# CLIP's own vocabulary: transformers' ids of 3259 strings in many scripts.
set(vocabulary ${CMAKE_CURRENT_SOURCE_DIR}/fixtures/clip_vocabulary)
file(ARCHIVE_EXTRACT INPUT ${vocabulary}/strings.tar.xz DESTINATION ${CMAKE_BINARY_DIR}/tests)
add_test(NAME clip_vocabulary COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_SOURCE_DIR}/tools/clip_vocabulary.py
  ${vocabulary}/merges.txt.gz ${CMAKE_BINARY_DIR}/tests/clip_vocabulary)
set_tests_properties(clip_vocabulary PROPERTIES LABELS "engine;golden" FIXTURES_SETUP clip_vocabulary)
add_test(NAME golden.clip_vocabulary COMMAND golden_check --with ${CMAKE_BINARY_DIR}/tests/clip_vocabulary
  ${CMAKE_BINARY_DIR}/tests/clip_strings.json)
set_tests_properties(golden.clip_vocabulary PROPERTIES LABELS "engine;golden" FIXTURES_REQUIRED clip_vocabulary)

add_test(NAME html_entities COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_SOURCE_DIR}/tools/html_entities.py
  ${CMAKE_SOURCE_DIR}/engine/rewards/html_entities.def --check)
set_tests_properties(html_entities PROPERTIES LABELS "engine;golden")

# Samplers besides DDIM: diffusers' pictures of the demo model, and trajectories that golden/ does not have.
add_test(NAME golden.sampler_pictures COMMAND golden_check --threads 2
  ${CMAKE_CURRENT_SOURCE_DIR}/fixtures/sampler_pictures)
add_test(NAME golden.samplers_more COMMAND golden_check --threads 2
  ${CMAKE_CURRENT_SOURCE_DIR}/fixtures/samplers_more.safetensors)
set_tests_properties(golden.sampler_pictures golden.samplers_more PROPERTIES LABELS "engine;golden" TIMEOUT 600)

add_test(NAME golden.era15-run COMMAND golden_check --threads 2 --draft-plus ${CMAKE_CURRENT_SOURCE_DIR}/fixtures/era15
  ${CMAKE_SOURCE_DIR}/deploy/demo/emoji-clip ${CMAKE_CURRENT_SOURCE_DIR}/fixtures/era15_run.safetensors)
add_test(NAME golden.full_training COMMAND golden_check --threads 2 --draft-plus ${CMAKE_SOURCE_DIR}/deploy/demo/emoji-sd
  ${CMAKE_SOURCE_DIR}/deploy/demo/emoji-clip ${CMAKE_CURRENT_SOURCE_DIR}/fixtures/full_training.safetensors)
# Micro-batches and recompute change memory and time alone.
add_test(NAME golden.k_all-recomputed COMMAND golden_check --threads 2 --recompute --micro-batch 3
  ${golden}/draft_plus/k_all.safetensors)
add_test(NAME golden.lv2-recomputed COMMAND golden_check --threads 2 --recompute --micro-batch 1
  ${golden}/draft_plus/lv2.safetensors)
set_tests_properties(golden.era15-run golden.full_training golden.k_all-recomputed golden.lv2-recomputed PROPERTIES
  LABELS "engine;golden" TIMEOUT 600)

# The models again with each other instruction set; skipped where the processor lacks it.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  foreach(isa x86-64 x86-64-v3 x86-64-v4-bf16)
    add_test(NAME golden.isa-${isa} COMMAND golden_check --threads 2 --isa ${isa} ${golden}/unet_sd15
      ${golden}/unet_sd21 ${golden}/vae ${golden}/clip_l ${golden}/clip_h ${golden}/lpips.safetensors
      ${golden}/resize_bicubic_antialias.safetensors)
    set_tests_properties(golden.isa-${isa} PROPERTIES LABELS "engine;golden" TIMEOUT 600 SKIP_RETURN_CODE 77)
    set(run ${golden}/draft_plus/cfg1.safetensors)
    if(isa MATCHES "bf16") # whose roundings a sampling loop carries on: its bounds are the models'
      set(run)
    endif()
    add_test(NAME golden.isa-${isa}-more COMMAND golden_check --threads 2 --isa ${isa} ${golden}/unet_demo
      ${golden}/samplers.safetensors ${golden}/jpeg_dct.safetensors ${run})
    set_tests_properties(golden.isa-${isa}-more PROPERTIES LABELS "engine;golden;slow" TIMEOUT 600 SKIP_RETURN_CODE 77)
  endforeach()
endif()

# The same numbers from the CUDA backend's code, over fakes (libdraft_cuda_host.so).
if(TARGET draft_cuda_host)
  add_dependencies(golden_check draft_cuda_host)
  add_test(NAME cuda-host.golden COMMAND golden_check --device cuda ${golden}/unet_demo ${golden}/vae ${golden}/clip_l
    ${golden}/clip_h ${golden}/lpips.safetensors ${golden}/resize_bicubic_antialias.safetensors
    ${golden}/samplers.safetensors)
  add_test(NAME cuda-host.golden-sd15 COMMAND golden_check --device cuda ${golden}/unet_sd15)
  add_test(NAME cuda-host.golden-bf16 COMMAND golden_check --device cuda --precision bf16 ${golden}/unet_demo
    ${golden}/vae ${golden}/clip_l ${golden}/clip_h ${golden}/lpips.safetensors)
  set_tests_properties(cuda-host.golden cuda-host.golden-sd15 cuda-host.golden-bf16 PROPERTIES TIMEOUT 600
    ENVIRONMENT "DRAFT_CUDA_CACHE=;DRAFT_CUDA_PLUGIN=$<TARGET_FILE:draft_cuda_host>" LABELS "engine;golden;cuda-host;slow")
endif()

# draft bench --profile, on the CPU and, where the fakes are, on the CUDA backend.
if(TARGET draft AND NOT DRAFT_SANITIZE)
  set(host_plugin)
  if(TARGET draft_cuda_host)
    set(host_plugin $<TARGET_FILE:draft_cuda_host>)
  endif()
  add_test(NAME bench_profile COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_SOURCE_DIR}/client/bench_profile_test.py
    $<TARGET_FILE:draft> ${host_plugin})
  set_tests_properties(bench_profile PROPERTIES LABELS "client;cuda-host" TIMEOUT 600)
endif()
