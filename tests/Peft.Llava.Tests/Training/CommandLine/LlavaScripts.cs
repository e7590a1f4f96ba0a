namespace Peft.Llava.Tests.Training;

/// <summary>
/// The argument lists of LLaVA's own scripts (haotian-liu/LLaVA, commit c121f04, folder scripts), as they stand there but for quotation marks and
/// the shell's variables.
/// </summary>
internal static class LlavaScripts
{
    public static IReadOnlyDictionary<string, string> All { get; } = new Dictionary<string, string>
    {
        ["v1_5/finetune.sh"] = """
            --deepspeed ./scripts/zero3.json --model_name_or_path lmsys/vicuna-13b-v1.5 --version v1 --data_path
            ./playground/data/llava_v1_5_mix665k.json --image_folder ./playground/data --vision_tower openai/clip-vit-large-patch14-336
            --pretrain_mm_mlp_adapter ./checkpoints/llava-v1.5-13b-pretrain/mm_projector.bin --mm_projector_type mlp2x_gelu --mm_vision_select_layer -2
            --mm_use_im_start_end False --mm_use_im_patch_token False --image_aspect_ratio pad --group_by_modality_length True --bf16 True --output_dir
            ./checkpoints/llava-v1.5-13b --num_train_epochs 1 --per_device_train_batch_size 16 --per_device_eval_batch_size 4
            --gradient_accumulation_steps 1 --evaluation_strategy no --save_strategy steps --save_steps 50000 --save_total_limit 1 --learning_rate 2e-5
            --weight_decay 0. --warmup_ratio 0.03 --lr_scheduler_type cosine --logging_steps 1 --tf32 True --model_max_length 2048
            --gradient_checkpointing True --dataloader_num_workers 4 --lazy_preprocess True --report_to wandb
            """,
        ["v1_5/finetune_lora.sh"] = """
            --lora_enable True --lora_r 128 --lora_alpha 256 --mm_projector_lr 2e-5 --deepspeed ./scripts/zero3.json --model_name_or_path
            lmsys/vicuna-13b-v1.5 --version v1 --data_path ./playground/data/llava_v1_5_mix665k.json --image_folder ./playground/data --vision_tower
            openai/clip-vit-large-patch14-336 --pretrain_mm_mlp_adapter ./checkpoints/llava-v1.5-13b-pretrain/mm_projector.bin --mm_projector_type
            mlp2x_gelu --mm_vision_select_layer -2 --mm_use_im_start_end False --mm_use_im_patch_token False --image_aspect_ratio pad
            --group_by_modality_length True --bf16 True --output_dir ./checkpoints/llava-v1.5-13b-lora --num_train_epochs 1
            --per_device_train_batch_size 16 --per_device_eval_batch_size 4 --gradient_accumulation_steps 1 --evaluation_strategy no --save_strategy
            steps --save_steps 50000 --save_total_limit 1 --learning_rate 2e-4 --weight_decay 0. --warmup_ratio 0.03 --lr_scheduler_type cosine
            --logging_steps 1 --tf32 True --model_max_length 2048 --gradient_checkpointing True --dataloader_num_workers 4 --lazy_preprocess True
            --report_to wandb
            """,
        ["v1_5/finetune_task.sh"] = """
            --deepspeed ./scripts/zero3.json --model_name_or_path liuhaotian/llava-v1.5-13b --version v1 --data_path
            ./playground/data/llava_v1_5_mix665k.json --image_folder ./playground/data --vision_tower openai/clip-vit-large-patch14-336
            --mm_projector_type mlp2x_gelu --mm_vision_select_layer -2 --mm_use_im_start_end False --mm_use_im_patch_token False --image_aspect_ratio
            pad --group_by_modality_length True --bf16 True --output_dir ./checkpoints/llava-v1.5-13b-task --num_train_epochs 1
            --per_device_train_batch_size 16 --per_device_eval_batch_size 4 --gradient_accumulation_steps 1 --evaluation_strategy no --save_strategy
            steps --save_steps 50000 --save_total_limit 1 --learning_rate 2e-5 --weight_decay 0. --warmup_ratio 0.03 --lr_scheduler_type cosine
            --logging_steps 1 --tf32 True --model_max_length 2048 --gradient_checkpointing True --dataloader_num_workers 4 --lazy_preprocess True
            --report_to wandb
            """,
        ["v1_5/finetune_task_lora.sh"] = """
            --lora_enable True --lora_r 128 --lora_alpha 256 --mm_projector_lr 2e-5 --deepspeed ./scripts/zero3.json --model_name_or_path
            liuhaotian/llava-v1.5-13b --version v1 --data_path ./playground/data/llava_v1_5_mix665k.json --image_folder ./playground/data --vision_tower
            openai/clip-vit-large-patch14-336 --mm_projector_type mlp2x_gelu --mm_vision_select_layer -2 --mm_use_im_start_end False
            --mm_use_im_patch_token False --image_aspect_ratio pad --group_by_modality_length True --bf16 True --output_dir
            ./checkpoints/llava-v1.5-13b-task-lora --num_train_epochs 1 --per_device_train_batch_size 16 --per_device_eval_batch_size 4
            --gradient_accumulation_steps 1 --evaluation_strategy no --save_strategy steps --save_steps 50000 --save_total_limit 1 --learning_rate 2e-4
            --weight_decay 0. --warmup_ratio 0.03 --lr_scheduler_type cosine --logging_steps 1 --tf32 True --model_max_length 2048
            --gradient_checkpointing True --dataloader_num_workers 4 --lazy_preprocess True --report_to wandb
            """,
        ["v1_5/pretrain.sh"] = """
            --deepspeed ./scripts/zero2.json --model_name_or_path lmsys/vicuna-13b-v1.5 --version plain --data_path
            ./playground/data/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json --image_folder ./playground/data/LLaVA-Pretrain/images --vision_tower
            openai/clip-vit-large-patch14-336 --mm_projector_type mlp2x_gelu --tune_mm_mlp_adapter True --mm_vision_select_layer -2
            --mm_use_im_start_end False --mm_use_im_patch_token False --bf16 True --output_dir ./checkpoints/llava-v1.5-13b-pretrain --num_train_epochs
            1 --per_device_train_batch_size 32 --per_device_eval_batch_size 4 --gradient_accumulation_steps 1 --evaluation_strategy no --save_strategy
            steps --save_steps 24000 --save_total_limit 1 --learning_rate 1e-3 --weight_decay 0. --warmup_ratio 0.03 --lr_scheduler_type cosine
            --logging_steps 1 --tf32 True --model_max_length 2048 --gradient_checkpointing True --dataloader_num_workers 4 --lazy_preprocess True
            --report_to wandb
            """,
        ["finetune.sh"] = """
            --deepspeed ./scripts/zero2.json --model_name_or_path ./checkpoints/vicuna --version v1 --data_path
            ./playground/data/llava_instruct_80k.json --image_folder /path/to/coco/train2017 --vision_tower openai/clip-vit-large-patch14
            --pretrain_mm_mlp_adapter ./checkpoints/llava-vicuna-pretrain/mm_projector.bin --mm_vision_select_layer -2 --mm_use_im_start_end False
            --mm_use_im_patch_token False --bf16 True --output_dir ./checkpoints/llava-vicuna-finetune --num_train_epochs 1
            --per_device_train_batch_size 16 --per_device_eval_batch_size 4 --gradient_accumulation_steps 1 --evaluation_strategy no --save_strategy
            steps --save_steps 50000 --save_total_limit 1 --learning_rate 2e-5 --weight_decay 0. --warmup_ratio 0.03 --lr_scheduler_type cosine
            --logging_steps 1 --tf32 True --model_max_length 2048 --gradient_checkpointing True --dataloader_num_workers 4 --lazy_preprocess True
            --report_to wandb
            """,
        ["finetune_full_schedule.sh"] = """
            --deepspeed ./scripts/zero2.json --model_name_or_path ./checkpoints/vicuna --version v1 --data_path
            ./playground/data/llava_instruct_158k.json --image_folder /path/to/coco/train2017 --vision_tower openai/clip-vit-large-patch14
            --pretrain_mm_mlp_adapter ./checkpoints/llava-vicuna-pretrain/mm_projector.bin --mm_vision_select_layer -2 --mm_use_im_start_end False
            --mm_use_im_patch_token False --bf16 True --output_dir ./checkpoints/llava-vicuna-finetune --num_train_epochs 3
            --per_device_train_batch_size 16 --per_device_eval_batch_size 4 --gradient_accumulation_steps 1 --evaluation_strategy no --save_strategy
            steps --save_steps 50000 --save_total_limit 1 --learning_rate 2e-5 --weight_decay 0. --warmup_ratio 0.03 --lr_scheduler_type cosine
            --logging_steps 1 --tf32 True --model_max_length 2048 --gradient_checkpointing True --dataloader_num_workers 4 --lazy_preprocess True
            --report_to wandb
            """,
        ["finetune_lora.sh"] = """
            --deepspeed ./scripts/zero2.json --lora_enable True --model_name_or_path ./checkpoints/vicuna --version v1 --data_path
            ./playground/data/llava_instruct_80k.json --image_folder /path/to/coco/train2017 --vision_tower openai/clip-vit-large-patch14
            --pretrain_mm_mlp_adapter ./checkpoints/llava-vicuna-pretrain/mm_projector.bin --mm_vision_select_layer -2 --mm_use_im_start_end False
            --mm_use_im_patch_token False --bf16 True --output_dir ./checkpoints/llava-vicuna-finetune_lora --num_train_epochs 1
            --per_device_train_batch_size 16 --per_device_eval_batch_size 4 --gradient_accumulation_steps 1 --evaluation_strategy no --save_strategy
            steps --save_steps 50000 --save_total_limit 1 --learning_rate 2e-5 --weight_decay 0. --warmup_ratio 0.03 --lr_scheduler_type cosine
            --logging_steps 1 --tf32 True --model_max_length 2048 --gradient_checkpointing True --lazy_preprocess True --dataloader_num_workers 4
            --report_to wandb
            """,
        ["finetune_qlora.sh"] = """
            --deepspeed ./scripts/zero2.json --lora_enable True --bits 4 --model_name_or_path ./checkpoints/vicuna --version v1 --data_path
            ./playground/data/llava_instruct_80k.json --image_folder /path/to/coco/train2017 --vision_tower openai/clip-vit-large-patch14
            --pretrain_mm_mlp_adapter ./checkpoints/llava-vicuna-pretrain/mm_projector.bin --mm_vision_select_layer -2 --mm_use_im_start_end False
            --mm_use_im_patch_token False --bf16 True --output_dir ./checkpoints/llava-vicuna-finetune_lora --num_train_epochs 1
            --per_device_train_batch_size 16 --per_device_eval_batch_size 4 --gradient_accumulation_steps 1 --evaluation_strategy no --save_strategy
            steps --save_steps 50000 --save_total_limit 1 --learning_rate 2e-5 --weight_decay 0. --warmup_ratio 0.03 --lr_scheduler_type cosine
            --logging_steps 1 --tf32 True --model_max_length 2048 --gradient_checkpointing True --lazy_preprocess True --dataloader_num_workers 4
            --report_to wandb
            """,
        ["finetune_sqa.sh"] = """
            --deepspeed ./scripts/zero2.json --model_name_or_path lmsys/vicuna-13b-v1.3 --version v1 --data_path
            /Data/ScienceQA/data/scienceqa/llava_train_QCM-LEA.json --image_folder /Data/ScienceQA/data/scienceqa/images/train --vision_tower
            openai/clip-vit-large-patch14 --pretrain_mm_mlp_adapter ./checkpoints/huggingface/liuhaotian/llava-pretrain-vicuna-13b-v1.3/mm_projector.bin
            --mm_vision_select_layer -2 --mm_use_im_start_end False --mm_use_im_patch_token False --bf16 True --output_dir
            ./checkpoints/llava-vicuna-13b-v1.3-pretrain_lcs558k_plain-ScienceQA_QCM_LEA-12e --num_train_epochs 12 --per_device_train_batch_size 16
            --per_device_eval_batch_size 4 --gradient_accumulation_steps 1 --evaluation_strategy no --save_strategy steps --save_steps 50000
            --save_total_limit 1 --learning_rate 2e-5 --weight_decay 0. --warmup_ratio 0.03 --lr_scheduler_type cosine --logging_steps 1 --tf32 True
            --model_max_length 2048 --gradient_checkpointing True --dataloader_num_workers 4 --lazy_preprocess True --report_to wandb
            """,
        ["pretrain.sh"] = """
            --deepspeed ./scripts/zero2.json --model_name_or_path ./checkpoints/vicuna --version plain --data_path /path/to/pretrain_data.json
            --image_folder /path/to/images --vision_tower openai/clip-vit-large-patch14 --tune_mm_mlp_adapter True --mm_vision_select_layer -2
            --mm_use_im_start_end False --mm_use_im_patch_token False --bf16 True --output_dir ./checkpoints/llava-vicuna-pretrain --num_train_epochs 1
            --per_device_train_batch_size 16 --per_device_eval_batch_size 4 --gradient_accumulation_steps 1 --evaluation_strategy no --save_strategy
            steps --save_steps 24000 --save_total_limit 1 --learning_rate 2e-3 --weight_decay 0. --warmup_ratio 0.03 --lr_scheduler_type cosine
            --logging_steps 1 --tf32 True --model_max_length 2048 --gradient_checkpointing True --dataloader_num_workers 4 --lazy_preprocess True
            --report_to wandb
            """,
        ["pretrain_xformers.sh"] = """
            --deepspeed ./scripts/zero2.json --model_name_or_path ./checkpoints/vicuna --version plain --data_path /path/to/pretrain_data.json
            --image_folder /path/to/images --vision_tower openai/clip-vit-large-patch14 --tune_mm_mlp_adapter True --mm_vision_select_layer -2
            --mm_use_im_start_end False --mm_use_im_patch_token False --bf16 False --output_dir ./checkpoints/llava-vicuna-pretrain --num_train_epochs 1
            --per_device_train_batch_size 4 --per_device_eval_batch_size 4 --gradient_accumulation_steps 4 --evaluation_strategy no --save_strategy
            steps --save_steps 24000 --save_total_limit 1 --learning_rate 2e-3 --weight_decay 0. --warmup_ratio 0.03 --lr_scheduler_type cosine
            --logging_steps 1 --tf32 False --model_max_length 2048 --gradient_checkpointing True --dataloader_num_workers 4 --lazy_preprocess True
            --report_to wandb
            """,
    };
}
